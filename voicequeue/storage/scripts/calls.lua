-- calls: hand out callbacks that are due. Nobody else gets them until `due`; then they are due again.
-- KEYS  root
-- ARGV  now, due, most that may be handed out and not claimed yet
-- RETURNS  ids
local now, due = ARGV[1], ARGV[2]
redis.call('ZREMRANGEBYSCORE', key('callbacks:out'), '-inf', now)
local room = tonumber(ARGV[3]) - redis.call('ZCARD', key('callbacks:out'))
if room <= 0 then return {} end
local ids = redis.call('ZRANGEBYSCORE', key('callbacks:pending'), '-inf', now, 'LIMIT', 0, room)
for _, id in ipairs(ids) do
  redis.call('ZADD', key('callbacks:pending'), due, id)
  redis.call('ZADD', key('callbacks:out'), due, id)
end
return ids
