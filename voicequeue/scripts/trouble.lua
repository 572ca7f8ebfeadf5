-- trouble: a call that upstream did not answer. Many in a row close the gate, the next time for longer.
-- KEYS  root
-- ARGV  now, detail, seconds to keep it closed at first, most
-- RETURNS  1 = this closed the gate, 0 = it did not
local IN_A_ROW = 5
local now, pause, pause_max = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
local failures = redis.call('HINCRBY', key('flow'), 'failures', 1)
local before = redis.call('HGET', key('gate'), 'upstream_down')
before = before and cjson.decode(before)
if before and tonumber(before.till) > now then return 0 end -- calls that had left before it closed
if not before and failures < IN_A_ROW then return 0 end
local wait = math.min(pause_max, pause * 2 ^ (before and before.times or 0))
close_gate('upstream_down', ARGV[1], ARGV[2], string.format('%.6f', now + wait))
return before and 0 or 1
