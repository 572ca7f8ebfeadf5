-- claim: of these jobs, those of which upstream has the order and that are due to be asked about.
-- A second message for the same job finds it not due and does nothing, so messages never multiply.
-- KEYS  root
-- ARGV  now, stage, due (until when nobody else may claim them), then ids
-- RETURNS  flat list: id, v, state, task_id, since, next, id, …
local now, stage, due = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local ASKED = { pending = true, failed = true, cancelled = true }
local claimed = {}
for a = 4, #ARGV do
  local id = ARGV[a]
  local job = redis.call('HMGET', key('job:' .. id), 'state', 'stage', 'v', stage .. '.task', 'since', 'next')
  local told, state = ASKED[job[1]] and due_key(job[1]), job[1]
  local at = told and redis.call('ZSCORE', told, id)
  if at and tonumber(at) <= now and job[2] == stage and job[4] then
    redis.call('ZADD', told, due, id)
    for _, value in ipairs({ id, job[3], state, job[4], job[5], job[6] or '' }) do claimed[#claimed + 1] = value end
  end
end
return claimed
