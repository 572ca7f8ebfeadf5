-- recall: have callbacks delivered that were given up, or try pending ones now.
-- KEYS  root
-- ARGV  now, then ids
-- RETURNS  for each 1 = it is pending, 0 = there is none (any more)
local now, known = ARGV[1], {}
for a = 2, #ARGV do
  local id = ARGV[a]
  local record = redis.call('HMGET', key('callback:' .. id), 'subject', 'seq')
  known[#known + 1] = record[1] and 1 or 0
  if record[1] then
    if redis.call('ZREM', key('callbacks:undelivered'), id) == 1 then
      redis.call('HSET', key('callback:' .. id), 'since', now, 'tries', 0)
    end
    await(id, record[1], record[2], now)
  end
end
return known
