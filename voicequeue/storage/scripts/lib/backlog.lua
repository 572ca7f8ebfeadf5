-- The backlog: lanes of queued jobs. Within a priority, batches take turns, so that a large batch does not starve a
-- small one.

-- Songs precede voices, so that started jobs finish first. Songs have negative scores (until 2096); the scores of
-- voices are their creation times unchanged, because a shifted score would lose the microseconds that keep jobs of
-- one call in order.
local SONGS_AHEAD = 4e9
local function lane_score(stage, created) return stage == 'music' and created - SONGS_AHEAD or created end

local function lane_key(rank, batch) return key('lane:' .. rank .. ':' .. (batch or '')) end

-- Append a score and an id to the list with this name; `lists` keeps its names in insertion order.
local function append_to(lists, name, score, id)
  local list = lists[name]
  if not list then
    list = {}
    lists[name], lists[#lists + 1] = list, name
  end
  list[#list + 1], list[#list + 2] = score, id
end

-- Wake one waiting dispatcher if there are queued jobs; the caller may know that (`is_any_queued`).
local function wake_dispatcher(is_any_queued)
  local has_queued = is_any_queued or redis.call('EXISTS', key('lanes:0'), key('lanes:1'), key('lanes:2')) > 0
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

-- Give a lane the last turn unless it has one. Days are counted from the first turn of a queue on.
local function give_turn(rank, batch)
  if redis.call('ZSCORE', key('lanes:' .. rank), batch or '') then return end
  local turn = redis.call('HINCRBY', key('counters'), 'lane_turn', 1)
  redis.call('ZADD', key('lanes:' .. rank), turn, batch or '')
  if turn == 1 then redis.call('HSETNX', key('counters'), 'days_from', 0) end
end

local function join_lane(rank, batch, stage, created, id)
  set_score(lane_key(rank, batch), id, lane_score(stage, created))
  drop_summary('lane:' .. rank .. ':' .. (batch or ''), lane_score(stage, created)) -- it may return to an old place
  give_turn(rank, batch)
  wake_dispatcher()
end

local function leave_lane(rank, batch, id)
  set_score(lane_key(rank, batch), id, false)
  left_lanes[lane_key(rank, batch)] = { key('lanes:' .. rank), batch or '' }
end

-- lane_heads: return a function that returns the first job of a lane (or the last, with `from_end`) that is of a
-- stage that is not paused and that is not skipped; called again, the next one, if the caller has taken the first from
-- the lane. With `starts` it continues where the last admission ended the lane, and from the front if it skips no job
-- there; where too many jobs are skipped, it ends the lane and writes its position to `stops`.
local PAGE = 50
local function lane_heads(paused, is_skipped, from_end, starts, stops)
  local low, high = paused.music and '0' or '-inf', paused.voice and '(0' or '+inf'
  local command, cursors = from_end and 'ZREVRANGEBYSCORE' or 'ZRANGEBYSCORE', {}
  if from_end then low, high = high, low end

  -- Read the next page of a lane. Jobs are rarely skipped, and many lanes give one job: the first page is one job. Returns
  -- whether there is any.
  local function turn_page(lane, cursor)
    cursor.position = cursor.position + #cursor.ids
    cursor.ids = redis.call(command, lane, low, high, 'LIMIT', cursor.position, cursor.is_read and PAGE or 1)
    cursor.n, cursor.is_read = 1, true
    if #cursor.ids > 0 then return true end
    if cursor.skipped > 0 or not (starts and starts().jobs[lane]) then return false end
    cursor.position, starts().jobs[lane] = 0, nil
    return turn_page(lane, cursor)
  end

  return function(rank, batch)
    local lane = lane_key(rank, batch)
    local start = not cursors[lane] and starts and starts().jobs[lane] or 0
    local cursor = cursors[lane] or { position = start, start = start, skipped = 0, ids = {}, n = 1 }
    cursors[lane] = cursor
    while cursor.ids[cursor.n] or turn_page(lane, cursor) do
      local id = cursor.ids[cursor.n]
      if not is_removed(lane, id) then
        local is_resting, ends_lane = is_skipped(id)
        if not is_resting then return id end
        if ends_lane then
          if starts and cursor.start + cursor.skipped > 0 then stops[lane] = cursor.start + cursor.skipped end
          return nil
        end
        cursor.skipped = cursor.skipped + 1
      end
      cursor.n = cursor.n + 1
    end
  end
end
