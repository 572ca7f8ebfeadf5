-- count_request: count requests of an API key that has a limit. A second's requests may come at once (GCRA).
-- KEYS  root
-- ARGV  name, requests per second, the most to count now, now
-- RETURNS  how many were counted, and as text the seconds until the next one is allowed ('' if some were)
local name, interval, now = key('api_keys:rate:' .. ARGV[1]), 1 / tonumber(ARGV[2]), tonumber(ARGV[4])
local burst = math.max(1, interval)
-- No more than a burst is owed: the key may have been slower before, and Redis's clock ahead.
local used_until = math.min(math.max(tonumber(redis.call('GET', name) or 0), now), now + burst)
local count = math.min(tonumber(ARGV[3]), math.floor((now + burst - used_until) / interval + 1e-6))
if count < 1 then return { 0, string.format('%.6f', used_until + interval - now - burst) } end
used_until = used_until + count * interval
redis.call('SET', name, string.format('%.6f', used_until), 'PX', math.ceil((used_until - now) * 1000) + 1000)
return { count, '' }
