-- The backlog: within a priority batches take turns, so a large one does not starve a small one.

-- Songs go before voices: what is begun is finished first. Their scores lie below zero (until a date in 2096);
-- those of voices are their times as they are, or the microseconds that keep jobs of one call in order would be
-- lost in rounding.
local SONGS_AHEAD = 4e9
local function line_score(stage, created) return created - (stage == 'music' and SONGS_AHEAD or 0) end

local function line_key(rank, batch) return key('line:' .. rank .. ':' .. (batch or '')) end

-- Lists by name, in the order in which the names came.
local function add(lists, name, ...)
  if not lists[name] then
    lists[name] = {}
    lists[#lists + 1] = name
  end
  for _, value in ipairs({ ... }) do table.insert(lists[name], value) end
end

-- There may be something to admit: of the pulses that wait, one is woken.
local function wake()
  local queued = redis.call('EXISTS', key('turns:0'), key('turns:1'), key('turns:2')) > 0
  if queued and redis.call('EXISTS', key('wake')) == 0 then redis.call('RPUSH', key('wake'), 1) end
end

-- Whether somebody waits who waits for no beat.
local urgent
local function is_urgent()
  if urgent == nil then urgent = redis.call('EXISTS', key('turns:0')) == 1 end
  return urgent
end

local function to_the_back(rank, batch, how)
  redis.call('ZADD', key('turns:' .. rank), how, redis.call('HINCRBY', key('counters'), 'turn', 1), batch or '')
end

local function join_line(rank, batch, stage, created, id)
  redis.call('ZADD', line_key(rank, batch), line_score(stage, created), id)
  to_the_back(rank, batch, 'NX')
  wake()
end

local function leave_line(rank, batch, id)
  redis.call('ZREM', line_key(rank, batch), id)
  if redis.call('EXISTS', line_key(rank, batch)) == 0 then redis.call('ZREM', key('turns:' .. rank), batch or '') end
end

-- heads: gives the head of each line (or its end), of those stages that are not paused, but for the jobs that are
-- passed over; again for the next one, when the caller has taken that from the line.
local PAGE = 50
local function heads(paused, is_passed, from_end)
  local low, high = paused.music and '0' or '-inf', paused.voice and '(0' or '+inf'
  local read, passed = from_end and 'ZREVRANGEBYSCORE' or 'ZRANGEBYSCORE', {}
  if from_end then low, high = high, low end
  return function(rank, batch)
    local line = line_key(rank, batch)
    local place, ids = passed[line] or 0, nil
    repeat
      local count = place > 0 and PAGE or 1 -- hardly ever is any passed over
      ids = redis.call(read, line, low, high, 'LIMIT', place, count)
      for _, id in ipairs(ids) do
        if not is_passed(id) then return id end
        place = place + 1
        passed[line] = place
      end
    until #ids < count
  end
end
