-- id_secret: return the secret from which the ids of jobs are derived. The first call creates it; if there are jobs by
-- then, their ids were derived without a secret, and are so from now on.
-- KEYS  root
-- ARGV  the secret to use if there is none
-- RETURNS  the secret, or 'unkeyed'
local secret = redis.call('GET', key('id_secret'))
if secret then return secret end
stamp_format()
secret = redis.call('EXISTS', key('events'), key('counters')) > 0 and 'unkeyed' or ARGV[1]
redis.call('SET', key('id_secret'), secret)
return secret
