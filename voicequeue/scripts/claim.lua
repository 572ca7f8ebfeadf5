-- claim: of these jobs, those that wait for upstream and are due to be asked about.
-- A second message for the same job finds it not due and does nothing, so messages never multiply.
-- KEYS  root
-- ARGV  now, stage, due (until when nobody else may claim them), then ids
-- RETURNS  flat list: id, v, task_id, since, next, id, …
local now, stage, due = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local claimed = {}
for a = 4, #ARGV do
  local id = ARGV[a]
  local job = redis.call('HMGET', key('job:' .. id), 'state', 'stage', 'v', stage .. '.task', 'since', 'next')
  local at = redis.call('ZSCORE', key('flight'), id)
  if job[1] == 'pending' and job[2] == stage and at and tonumber(at) <= now then
    redis.call('ZADD', key('flight'), due, id)
    for _, value in ipairs({ id, job[3], job[4], job[5], job[6] or '' }) do claimed[#claimed + 1] = value end
  end
end
return claimed
