-- count_request: count a request of an API key that has a limit. A second's requests may come at once (GCRA).
-- KEYS  root
-- ARGV  name, requests per second, now
-- RETURNS  seconds until the next request is allowed, as text; '' = this one is
local name, interval, now = key('api_keys:rate:' .. ARGV[1]), 1 / tonumber(ARGV[2]), tonumber(ARGV[3])
local burst = math.max(1, interval)
local used_until = math.max(tonumber(redis.call('GET', name) or 0), now) + interval
local wait = used_until - now - burst
if wait > 1e-6 then return string.format('%.6f', wait) end
redis.call('SET', name, string.format('%.6f', used_until), 'PX', math.ceil((used_until - now) * 1000) + 1000)
return ''
