-- login: Counts a try to log in from an address, unless that address has to wait.
-- KEYS    the root
-- ARGV    address, now, tries before the first wait, the first wait, the longest one, when tries are forgotten,
--         so many addresses within so many seconds are an attack by many, addresses that are remembered
-- RETURNS the seconds to wait, as text; '0': the try was counted
local address, now = ARGV[1], tonumber(ARGV[2])
local allowed, first_s, longest_s, forget_s = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local many, many_s, most = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local last, tries = key('logins'), key('logins:tries')

local function forget(addresses)
  if #addresses == 0 then return end
  redis.call('ZREM', last, unpack(addresses))
  redis.call('HDEL', tries, unpack(addresses))
end

forget(redis.call('ZRANGE', last, '-inf', now - forget_s, 'BYSCORE', 'LIMIT', 0, 100))
if redis.call('ZCOUNT', last, now - many_s, '+inf') >= many then allowed = 1 end
local failed = tonumber(redis.call('HGET', tries, address) or 0)
if failed >= allowed then
  local wait_s = math.min(first_s * 2 ^ math.min(failed - allowed, 30), longest_s)
  local left_s = math.min((redis.call('ZSCORE', last, address) or 0) + wait_s - now, wait_s)
  if left_s > 0 then return string.format('%.3f', left_s) end
end
redis.call('ZADD', last, now, address)
redis.call('HINCRBY', tries, address, 1)
forget(redis.call('ZRANGE', last, 0, -most - 1))
redis.call('EXPIRE', last, forget_s)
redis.call('EXPIRE', tries, forget_s)
return '0'
