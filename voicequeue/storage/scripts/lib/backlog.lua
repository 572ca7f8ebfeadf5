-- The backlog: lanes of queued jobs. Within a priority, batches take turns, so that a large batch does not starve a
-- small one.

-- Songs precede voices, so that started jobs finish first. Songs have negative scores (until 2096); the scores of
-- voices are their creation times unchanged, because a shifted score would lose the microseconds that keep jobs of
-- one call in order.
local SONGS_AHEAD = 4e9
local function lane_score(stage, created) return created - (stage == 'music' and SONGS_AHEAD or 0) end

local function lane_key(rank, batch) return key('lane:' .. rank .. ':' .. (batch or '')) end

-- Append values to the list with this name; `lists` keeps its names in insertion order.
local function append_to(lists, name, ...)
  if not lists[name] then
    lists[name] = {}
    lists[#lists + 1] = name
  end
  for _, value in ipairs({ ... }) do table.insert(lists[name], value) end
end

-- Wake one waiting dispatcher if there are queued jobs.
local function wake_dispatcher()
  local has_queued = redis.call('EXISTS', key('lanes:0'), key('lanes:1'), key('lanes:2')) > 0
  if has_queued and redis.call('EXISTS', key('wake')) == 0 then redis.call('RPUSH', key('wake'), 1) end
end

-- Set fields of a hash: field, value ('' = delete it), …, from this index. A change wakes a dispatcher, because a limit may
-- have been raised. Returns the number of fields that changed.
local function set_fields(name, fields, first)
  local changed = 0
  for f = first, #fields, 2 do
    local field, value = fields[f], fields[f + 1]
    if (redis.call('HGET', name, field) or '') ~= value then changed = changed + 1 end
    if value == '' then redis.call('HDEL', name, field) else redis.call('HSET', name, field, value) end
  end
  if changed > 0 then wake_dispatcher() end
  return changed
end

-- Return whether jobs with high priority are queued; read once.
local is_high_queued
local function has_high_priority()
  if is_high_queued == nil then is_high_queued = redis.call('EXISTS', key('lanes:0')) == 1 end
  return is_high_queued
end

-- Give a lane the last turn; `mode` is a flag of ZADD.
local function move_to_back(rank, batch, mode)
  redis.call('ZADD', key('lanes:' .. rank), mode, redis.call('HINCRBY', key('counters'), 'lane_turn', 1), batch or '')
end

local function join_lane(rank, batch, stage, created, id)
  redis.call('ZADD', lane_key(rank, batch), lane_score(stage, created), id)
  move_to_back(rank, batch, 'NX')
  wake_dispatcher()
end

local function leave_lane(rank, batch, id)
  redis.call('ZREM', lane_key(rank, batch), id)
  if redis.call('EXISTS', lane_key(rank, batch)) == 0 then redis.call('ZREM', key('lanes:' .. rank), batch or '') end
end

-- lane_heads: return a function that returns the first job of a lane (or the last, with `from_end`) that is of a
-- stage that is not paused and that is not skipped; called again, the next one, if the caller has removed the first
-- from the lane. With `starts` it continues where the last admission ended the lane, and from the front if it skips no job
-- there; where too many jobs are skipped, it ends the lane and writes its position to `stops`.
local PAGE = 50
local function lane_heads(paused, is_skipped, from_end, starts, stops)
  local low, high = paused.music and '0' or '-inf', paused.voice and '(0' or '+inf'
  local command, skipped = from_end and 'ZREVRANGEBYSCORE' or 'ZRANGEBYSCORE', {}
  if from_end then low, high = high, low end
  return function(rank, batch)
    local lane = lane_key(rank, batch)
    local position, ids, is_over = skipped[lane] or (starts and starts().jobs[lane]) or 0, nil, false
    repeat
      local count = position > 0 and PAGE or 1 -- jobs are rarely skipped
      ids = redis.call(command, lane, low, high, 'LIMIT', position, count)
      for _, id in ipairs(ids) do
        local is_resting, ends_lane = is_skipped(id)
        if not is_resting then return id end
        if ends_lane then
          if starts and position > 0 then stops[lane] = position end
          return nil
        end
        position = position + 1
        skipped[lane] = position
      end
      is_over = #ids < count
      if is_over and not skipped[lane] and starts and starts().jobs[lane] then
        position, is_over, starts().jobs[lane] = 0, false, nil
      end
    until is_over
  end
end
