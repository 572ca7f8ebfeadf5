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
    local job = redis.call('HMGET', key('job:' .. id), 'stage', 'next_stage', 'source')
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

-- Return the next job of a lane that its API key allows: its id, stage and cost; nil if there is none, or the limits of
-- the lane do not allow it.
local function next_allowed(rank, batch, head_of, skip_key, now)
  local id = head_of(rank, batch)
  while id do
    local job = redis.call('HMGET', key('job:' .. id), 'stage', 'next_stage', 'source')
    local cost = cost_from_stage(job[1], job[2])
    if #lane_holds(batch, 1, cost, now) > 0 then return nil end
    if #key_holds(job[3], 1, cost, now) == 0 then return id, job[1], cost end
    skip_key(job[3], cost)
    id = head_of(rank, batch)
  end
end

-- The most lanes of one priority in which an admission looks for a job in vain.
local LANES_IN_VAIN_MAX = 500

-- Call `visit` with each lane of a priority, in turn, while `is_needed` returns true. It returns whether the lane gave a job
-- (and has the last turn now), and whether that was known without a look into the lane. Continues where the last
-- admission ended, up to the last lane and then from the first; where too many lanes give none, it ends and writes its
-- position to `stops`.
local function visit_lanes(rank, stops, is_needed, visit)
  local position, in_vain, p = 0, 0, 1
  local function page_from(start) return redis.call('ZRANGE', key('lanes:' .. rank), start, start + PAGE - 1) end
  local page = is_needed() and page_from(0) or {}
  if page[1] and admission_starts().lanes[rank] then
    position = last_stops.lanes[rank]
    page = page_from(position)
  end
  while is_needed() do
    if not page[p] and p > 1 then page, p = page_from(position), 1 end
    if not page[p] then
      if not (last_stops and last_stops.lanes[rank]) then return end
      position, last_stops.lanes[rank] = 0, nil
      page, p = page_from(0), 1
    elseif in_vain == LANES_IN_VAIN_MAX then
      stops[rank] = position
      return
    else
      local has_given, was_known = visit(page[p])
      p = p + 1
      if not has_given then position, in_vain = position + 1, in_vain + (was_known and 0 or 1) end
    end
  end
end
