-- callback_retry: make undelivered callbacks pending again, and pending ones due now.
-- KEYS  root
-- ARGV  now, then ids
-- RETURNS  for each id 1 = it is pending, 0 = no such callback
local now, is_pending = ARGV[1], {}
for a = 2, #ARGV do
  local id = ARGV[a]
  local subject, seq = unpack(redis.call('HMGET', key('callback:' .. id), 'subject', 'seq'))
  is_pending[#is_pending + 1] = subject and 1 or 0
  if subject then
    if redis.call('ZREM', key('callbacks:undelivered'), id) == 1 then
      redis.call('HSET', key('callback:' .. id), 'since', now, 'attempts', 0)
    end
    add_callback(id, subject, seq, now)
  end
end
return is_pending
