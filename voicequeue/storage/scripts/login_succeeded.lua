-- login_succeeded: uncount a login attempt whose key was valid.
-- KEYS    root
-- ARGV    address
-- RETURNS nothing
local address = ARGV[1]
if redis.call('HINCRBY', key('failed_logins:attempts'), address, -1) <= 0 then
  redis.call('ZREM', key('failed_logins'), address)
  redis.call('HDEL', key('failed_logins:attempts'), address)
end
