-- lease_expired: return jobs that have missed the deadline for their start. It is postponed by a minute, so that they
-- are returned again if the caller crashes.
-- KEYS  root
-- ARGV  now, maximum number to return
-- RETURNS  flat list: id, version, state, stage, lost_orders ('' = none), id, … of jobs that are queued or waiting and
--          have spent nothing
local BEFORE_START = { waiting = true, queued = true, admitted = true, charging = true, unsure = true }
local jobs = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('start_by'), '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])) do
  local job = redis.call('HMGET', JOB .. id, 'version', 'state', 'stage', 'credits', 'lost_orders')
  if not BEFORE_START[job[2]] or job[4] then
    redis.call('ZREM', key('start_by'), id)
  else
    redis.call('ZADD', key('start_by'), ARGV[1] + 60, id)
    if job[2] == 'queued' or job[2] == 'waiting' then
      for _, value in ipairs({ id, job[1], job[2], job[3], job[5] or '' }) do jobs[#jobs + 1] = value end
    end
  end
end
return jobs
