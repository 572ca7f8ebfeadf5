-- reassign_voice_creators: let a waiting job create its voice if the current creator may not start (its batch is
-- paused, or has reached its credit limit) and the waiting job may.
-- KEYS  root
-- ARGV  now, number of waiting jobs to examine; the next call continues after them
-- RETURNS  number of reassigned voices
local now, count = ARGV[1], tonumber(ARGV[2])
local from = tonumber(redis.call('HGET', key('flow'), 'waiting_cursor') or 0)
local ids = redis.call('ZRANGE', key('state:waiting'), from, from + count - 1)
redis.call('HSET', key('flow'), 'waiting_cursor', #ids < count and 0 or from + count)

local reassigned = 0
for _, id in ipairs(ids) do
  local voice = redis.call('HGET', key('job:' .. id), 'shared_voice')
  if voice and take_over_creation(voice, id, now) then
    transition(id, { to = 'queued', stage = 'voice', reason = 'creates the voice: its previous creator may not start' }, now)
    reassigned = reassigned + 1
  end
end
return reassigned
