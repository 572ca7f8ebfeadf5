-- repair_stopped_batches: list each batch that has stopped itself, and no other.
-- KEYS  root
-- ARGV  now, names of batches
-- RETURNS  for each 1 = repaired, 0 = the list was right
local repaired = {}
for a = 2, #ARGV do
  local is_stopped = redis.call('HEXISTS', key('batch:' .. ARGV[a]), 'stopped') == 1
  repaired[a - 1] = is_stopped and redis.call('ZADD', key('batches:stopped'), 'NX', ARGV[1], ARGV[a])
    or not is_stopped and redis.call('ZREM', key('batches:stopped'), ARGV[a]) or 0
end
return repaired
