-- purge_callbacks: delete callbacks that were given up before the retention period.
-- KEYS  root
-- ARGV  now, retention (seconds), maximum number to delete
-- RETURNS  number of deleted callbacks
local before = string.format('(%.6f', tonumber(ARGV[1]) - tonumber(ARGV[2]))
local ids = redis.call('ZRANGEBYSCORE', key('callbacks:undelivered'), '-inf', before, 'LIMIT', 0, ARGV[3])
for _, id in ipairs(ids) do
  redis.call('ZREM', key('callbacks:undelivered'), id)
  redis.call('DEL', key('callback:' .. id))
end
return #ids
