-- discard: let go of callbacks that were given up for longer ago than they are kept.
-- KEYS  root
-- ARGV  now, how long they are kept (seconds), most to let go of
-- RETURNS  how many are gone
local before = string.format('(%.6f', tonumber(ARGV[1]) - tonumber(ARGV[2]))
local ids = redis.call('ZRANGEBYSCORE', key('callbacks:undelivered'), '-inf', before, 'LIMIT', 0, ARGV[3])
for _, id in ipairs(ids) do
  redis.call('ZREM', key('callbacks:undelivered'), id)
  redis.call('DEL', key('callback:' .. id))
end
return #ids
