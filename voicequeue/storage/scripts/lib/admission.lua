-- Admission: which lanes and jobs are passed over, because the limits of their owners hold them.

-- Where the last admission stopped, because it passed over too many lanes or jobs: `lanes` by priority, `jobs` by lane. The
-- next one continues there, so that no job hides those behind it. Read once.
local last_stops
local function admission_starts()
  local text = not last_stops and redis.call('GET', key('admit_stops'))
  if text then redis.call('DEL', key('admit_stops')) end
  last_stops = last_stops or (text and cjson.decode(text)) or { lanes = {}, jobs = {} }
  return last_stops
end

local function keep_stops(stops)
  if next(stops.lanes) or next(stops.jobs) then redis.call('SET', key('admit_stops'), cjson.encode(stops)) end
end

-- The most jobs that one admission passes over because their API key has reached a limit; the next one continues there.
local PASSED_OVER_MAX = 1000

-- Return a predicate for jobs to skip, and a function that makes it skip those of an API key that cost as much or more.
local function skips_held_keys(is_skipped)
  local held_from, passed_over = {}, 0
  local function is_held(id)
    local resting, ends_lane = is_skipped(id)
    if resting or not next(held_from) then return resting, ends_lane end
    local job = redis.call('HMGET', JOB .. id, 'stage', 'next_stage', 'source')
    local least = held_from[job[3]]
    if not least or cost_from_stage(job[1], job[2]) < least then return false end
    passed_over = passed_over + 1
    return true, passed_over > PASSED_OVER_MAX
  end
  return is_held, function(source, cost) held_from[source] = cost end
end

-- Return whether an owner allows no job, not even the cheapest order. For an admission, which only adds to what is used.
local held_owners = {}
local function is_owner_held(owner, now)
  held_owners[owner] = held_owners[owner] or #owner_holds(owner, 1, PRICE_MIN, now) > 0
  return held_owners[owner]
end

-- Return the next job of a lane that its API key allows: its id, record and cost; nil if there is none, or the limits of
-- the lane do not allow it.
local function next_allowed(rank, batch, head_of, skip_key, now)
  local id = head_of(rank, batch)
  while id do
    local job = read_record(id, STATE, RANK)
    local cost = cost_from_stage(job.stage, job.next_stage)
    if #lane_holds(batch, 1, cost, now) > 0 then return nil end
    if #key_holds(job.source, 1, cost, now) == 0 then return id, job, cost end
    skip_key(job.source, cost)
    id = head_of(rank, batch)
  end
end

-- Return a function that returns the lanes of a priority one after the other: from where the last admission ended to the
-- last, those that have given a job again (the caller appends them to `given`), and from the first to that start. Where it
-- starts, and where it starts from the first, its second value is the place.
local function lanes_in_turn(rank, given)
  local start, last, offset, page, p, g, is_over = nil, nil, 0, {}, 1, 0, false
  local function turn_page()
    page = redis.call('ZRANGE', key('lanes:' .. rank), offset, math.min(offset + PAGE - 1, last or offset + PAGE))
    offset, p, is_over = offset + #page, 1, not page[1]
    return page[1]
  end
  return function()
    local place
    if not start then
      start = turn_page() and admission_starts().lanes[rank] or 0
      place = start
      if start > 0 then offset, page, is_over = start, {}, false end
    end
    if not page[p] and (is_over or not turn_page()) then
      if given[g + 1] then
        g = g + 1
        return given[g]
      end
      if start > 0 and not last then
        offset, last, place = 0, start - 1, 0
        turn_page()
      end
    end
    p = p + 1
    return page[p - 1], place
  end
end

-- Give lanes the last turns of their priority; of the numbers of a lane the last one counts.
local function write_turns(rank, lanes)
  if #lanes == 0 then return end
  local before, numbers, turns = redis.call('HINCRBY', key('counters'), 'lane_turn', #lanes) - #lanes, {}, {}
  for n, batch in ipairs(lanes) do numbers[batch] = before + n end
  for batch, number in pairs(numbers) do
    turns[#turns + 1] = number
    turns[#turns + 1] = batch
  end
  redis.call('ZADD', key('lanes:' .. rank), 'XX', unpack(turns))
end

-- The most lanes of one priority in which an admission looks for a job in vain.
local LANES_IN_VAIN_MAX = 500

-- Call `visit` with each lane of a priority, in turn, while `is_needed` returns true. It returns whether the lane gave a job
-- (and has the last turn now), and whether that was known without a look into the lane. Where too many lanes give none, it
-- ends and writes its position to `stops`.
local function visit_lanes(rank, stops, is_needed, visit)
  local given, position, in_vain = {}, 0, 0
  local next_lane = lanes_in_turn(rank, given)
  while is_needed() do
    local batch, place = next_lane()
    position = place or position
    if not batch then break end
    if in_vain == LANES_IN_VAIN_MAX then
      stops[rank] = position
      break
    end
    local has_given, was_known = visit(batch)
    if has_given then
      given[#given + 1] = batch
    else
      position, in_vain = position + 1, in_vain + (was_known and 0 or 1)
    end
  end
  write_turns(rank, given)
end
