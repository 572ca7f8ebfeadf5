-- callback_finish: record the outcome of a claimed callback.
-- KEYS  root
-- ARGV  now, id, outcome ('delivered' | 'retry' | 'undelivered'), due (of retry), reason, 1 = it was attempted or 0
-- RETURNS  1 = written, 0 = the callback is already delivered or undelivered
local now, id, outcome, due, reason, attempted = unpack(ARGV)
local callback = key('callback:' .. id)
local subject, batch = unpack(redis.call('HMGET', callback, 'subject', 'batch'))
if not subject or not redis.call('ZSCORE', key('callbacks:pending'), id) then return 0 end
if outcome == 'delivered' then
  redis.call('DEL', callback)
  add_to_total(batch ~= '*/' and batch or '', 'callbacks.delivered') -- '*/': a budget that is operators' only
  remove_callback(id, subject, now)
  return 1
end
if reason ~= '' then redis.call('HSET', callback, 'reason', reason) end
redis.call('HINCRBY', callback, 'attempts', attempted)
if outcome == 'undelivered' then
  redis.call('ZADD', key('callbacks:undelivered'), now, id)
  remove_callback(id, subject, now)
elseif redis.call('ZRANGE', key('callbacks:order:' .. subject), 0, 0)[1] == id then
  redis.call('ZADD', key('callbacks:pending'), due, id)
end -- otherwise an earlier callback of the subject is redelivered, and this one waits for it
return 1
