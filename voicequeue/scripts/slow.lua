-- slow: upstream said "slow down": nothing is charged for a while, and fewer jobs may be in flight.
-- KEYS  root
-- ARGV  now, detail, seconds
-- RETURNS  1 = the gate was not cooling down before, 0 = it was
local now, pause = tonumber(ARGV[1]), tonumber(ARGV[3])
-- What upstream was well with: the orders of ours that it has taken.
cut(now, redis.call('ZCARD', key('state:pending')), pause)
return close_gate('cooldown', ARGV[1], ARGV[2], string.format('%.6f', now + pause)) and 0 or 1
