-- close: hold admission back. A gate that is closed for longer already stays as it is, so that a short
-- cool-down never cuts a pause or an empty account short.
-- KEYS  root
-- ARGV  now, reason, detail, until ('' = till somebody opens it)
-- RETURNS  1 = closed as asked, 0 = it was closed for at least as long
local now, reason, detail, till = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if gate_closed(now) then
  local standing = redis.call('HGET', key('gate'), 'until')
  if not standing or (till ~= '' and tonumber(till) <= tonumber(standing)) then return 0 end
end
redis.call('DEL', key('gate'))
redis.call('HSET', key('gate'), 'reason', reason, 'detail', detail, 'since', now)
if till ~= '' then redis.call('HSET', key('gate'), 'until', till) end
return 1
