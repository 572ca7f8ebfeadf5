-- called: write what became of a callback that was claimed.
-- KEYS  root
-- ARGV  now, id, 'delivered' | 'later' | 'undelivered', when it is due (of later), reason, 1 = it was tried or 0
-- RETURNS  1 = written, 0 = it is over already
local now, id, became, due, reason, tried = unpack(ARGV)
local callback = key('callback:' .. id)
local subject = redis.call('HGET', callback, 'subject')
if not subject or not redis.call('ZSCORE', key('callbacks:pending'), id) then return 0 end
if became == 'delivered' then
  redis.call('DEL', callback)
  redis.call('HINCRBY', key('counters'), 'callbacks.delivered', 1)
  leave_callbacks(id, subject, now)
  return 1
end
if reason ~= '' then redis.call('HSET', callback, 'reason', reason) end
redis.call('HINCRBY', callback, 'tries', tried)
if became == 'undelivered' then
  redis.call('ZADD', key('callbacks:undelivered'), now, id)
  leave_callbacks(id, subject, now)
elseif redis.call('ZRANGE', key('callbacks:of:' .. subject), 0, 0)[1] == id then
  redis.call('ZADD', key('callbacks:pending'), due, id)
end -- else somebody has an earlier one delivered again, and it waits for that
return 1
