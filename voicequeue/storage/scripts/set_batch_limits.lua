-- set_batch_limits: set the pause and the limits of a batch. Without its pause it starts a new sample if it was stopped;
-- a limit that its sample has reached already stops it.
-- KEYS  root
-- ARGV  now, batch, then field, value ('' = no limit), field, value, …
-- RETURNS  1 = something has changed, 0 = nothing
local now, batch = ARGV[1], ARGV[2]
local name, has_changed = key('batch:' .. batch), 0
for a = 3, #ARGV, 2 do
  local field, value = ARGV[a], ARGV[a + 1]
  local before = redis.call('HGET', name, field) or (field == 'paused' and '0' or '')
  if before ~= value then has_changed = 1 end
  if value == '' then redis.call('HDEL', name, field) else redis.call('HSET', name, field, value) end
  if field == 'paused' and value == '0' and end_stop(batch) then has_changed = 1 end
end
stop_if_failing(batch, now)
return has_changed
