-- pardon: Takes back a try to log in that was counted, for its key was right.
-- KEYS    the root
-- ARGV    address
-- RETURNS nothing
local address = ARGV[1]
if redis.call('HINCRBY', key('logins:tries'), address, -1) <= 0 then
  redis.call('ZREM', key('logins'), address)
  redis.call('HDEL', key('logins:tries'), address)
end
