-- login_attempt: count a login attempt from an address, unless the address has to wait.
-- KEYS    root
-- ARGV    address, now, attempts before the first wait, first wait, longest wait, seconds until attempts are forgotten,
--         number of addresses within a number of seconds that count as a distributed attack, addresses to remember
-- RETURNS the seconds to wait, as text; '0': the attempt was counted
local address, now = ARGV[1], tonumber(ARGV[2])
local allowed, first_s, longest_s, forget_s = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local attack_size, attack_s, max_addresses = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local last, attempts = key('failed_logins'), key('failed_logins:attempts')

local function forget(addresses)
  if #addresses == 0 then return end
  redis.call('ZREM', last, unpack(addresses))
  redis.call('HDEL', attempts, unpack(addresses))
end

forget(redis.call('ZRANGE', last, '-inf', now - forget_s, 'BYSCORE', 'LIMIT', 0, 100))
if redis.call('ZCOUNT', last, now - attack_s, '+inf') >= attack_size then allowed = 1 end
local failed = tonumber(redis.call('HGET', attempts, address) or 0)
if failed >= allowed then
  local wait_s = math.min(first_s * 2 ^ math.min(failed - allowed, 30), longest_s)
  local left_s = math.min((redis.call('ZSCORE', last, address) or 0) + wait_s - now, wait_s)
  if left_s > 0 then return string.format('%.3f', left_s) end
end
redis.call('ZADD', last, now, address)
redis.call('HINCRBY', attempts, address, 1)
forget(redis.call('ZRANGE', last, 0, -max_addresses - 1))
redis.call('EXPIRE', last, forget_s)
redis.call('EXPIRE', attempts, forget_s)
return '0'
