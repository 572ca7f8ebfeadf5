-- lease_overdue: return jobs in flight or late that were due and that no worker has processed. Their due time is set
-- to now, so that no other process gets them at the same time.
-- KEYS  root
-- ARGV  now, seconds past due, maximum number to return, the longest that a job in flight is ever postponed (seconds)
-- RETURNS  flat list: id, version, state, stage, id, …
local now, overdue_s, latest = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[1] + ARGV[4]
-- A later due time was written before Redis's clock was set back.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('in_flight'), '(' .. latest, '+inf', 'LIMIT', 0, ARGV[3])) do
  redis.call('ZADD', key('in_flight'), latest, id)
end
local jobs = {}
for _, index in ipairs({ key('in_flight'), key('late_results') }) do
  local ids = redis.call('ZRANGEBYSCORE', index, '-inf', now - overdue_s, 'WITHSCORES', 'LIMIT', 0, ARGV[3])
  for i = 1, #ids, 2 do
    local id, at = ids[i], ids[i + 1]
    local job = redis.call('HMGET', JOB .. id, 'version', 'state', 'stage')
    if job[1] then
      redis.call('ZADD', index, now, id)
      exclude_idle_time(id, job[2], now - at)
      for _, value in ipairs({ id, job[1], job[2], job[3] }) do jobs[#jobs + 1] = value end
    else
      redis.call('ZREM', index, id) -- its record is gone: nothing is left to reconcile
    end
  end
end
return jobs
