-- outbox_lease: hand out entries that are due. Until `lease_end` no other call returns them; then they are due again.
-- KEYS  root
-- ARGV  outbox ('callbacks' | 'archive'), now, lease_end, most entries that may be handed out and not claimed yet
-- RETURNS  ids
local pending, leased = key(ARGV[1] .. ':pending'), key(ARGV[1] .. ':leased')
local now, lease_end = ARGV[2], ARGV[3]
redis.call('ZREMRANGEBYSCORE', leased, '-inf', now)
local room = tonumber(ARGV[4]) - redis.call('ZCARD', leased)
if room <= 0 then return {} end
local ids = redis.call('ZRANGEBYSCORE', pending, '-inf', now, 'LIMIT', 0, room)
for _, id in ipairs(ids) do
  redis.call('ZADD', pending, lease_end, id)
  redis.call('ZADD', leased, lease_end, id)
end
return ids
