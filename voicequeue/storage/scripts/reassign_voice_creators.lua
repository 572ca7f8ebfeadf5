-- reassign_voice_creators: let a waiting job create its voice if the current creator may not start (its batch is
-- paused, or has reached its credit limit) and the waiting job may.
-- KEYS  root
-- ARGV  now, number of waiting jobs to examine; the next call continues after them
-- RETURNS  number of reassigned voices
local now, count = ARGV[1], tonumber(ARGV[2])
local from = tonumber(redis.call('HGET', key('flow'), 'waiting_cursor') or 0)

-- Return the next waiting jobs, of one namespace after the other.
local function next_waiting()
  local ids, position, namespaces = {}, from, redis.call('ZRANGE', key('namespaces'), 0, -1)
  table.insert(namespaces, 1, '')
  for _, namespace in ipairs(namespaces) do
    local index = key(index_of('state:waiting', namespace))
    local page = redis.call('ZRANGE', index, position, position + count - #ids - 1)
    for _, id in ipairs(page) do ids[#ids + 1] = id end
    if #ids == count then break end
    position = (#page > 0 or position == 0) and 0 or position - redis.call('ZCARD', index)
  end
  return ids
end

local ids = next_waiting()
redis.call('HSET', key('flow'), 'waiting_cursor', #ids < count and 0 or from + count)

local reassigned = 0
for _, id in ipairs(ids) do
  local voice = redis.call('HGET', JOB .. id, 'shared_voice')
  if voice and take_over_creation(voice, id, now) then
    transition(id, { to = 'queued', stage = 'voice', reason = 'creates the voice: its previous creator may not start' }, now)
    reassigned = reassigned + 1
  end
end
return reassigned
