-- expired: jobs that should have begun by now and have not. They are put off by a minute, lest the caller die.
-- KEYS  root
-- ARGV  now, most to return
-- RETURNS  flat list: id, v, state, stage, lost ('' = none of its orders was), id, … of those that are queued or waiting
--          and have spent nothing
local NOT_BEGUN = { waiting = true, queued = true, admitted = true, charging = true, unsure = true }
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('expiry'), '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])) do
  local job = redis.call('HMGET', key('job:' .. id), 'v', 'state', 'stage', 'credits', 'lost')
  if not NOT_BEGUN[job[2]] or job[4] then
    redis.call('ZREM', key('expiry'), id)
  else
    redis.call('ZADD', key('expiry'), ARGV[1] + 60, id)
    if job[2] == 'queued' or job[2] == 'waiting' then
      for _, value in ipairs({ id, job[1], job[2], job[3], job[5] or '' }) do found[#found + 1] = value end
    end
  end
end
return found
