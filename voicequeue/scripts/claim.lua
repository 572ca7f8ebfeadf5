-- claim: of these jobs, those of which upstream has the order and that are due to be asked about.
-- A second message for the same job finds it not due and does nothing, so messages never multiply.
-- KEYS  root
-- ARGV  now, stage, due (until when nobody else may claim them), then ids
-- RETURNS  flat list: id, v, state, task_id, since, asked, next, model, id, …
local now, stage, due = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local ASKED = { pending = true, failed = true, cancelled = true }
local claimed = {}
for a = 4, #ARGV do
  local id = ARGV[a]
  local job = redis.call('HMGET', key('job:' .. id), 'stage', 'v', 'state', stage .. '.task', 'since', 'asked', 'next',
    'model')
  local told = ASKED[job[3]] and due_key(job[3])
  local at = told and redis.call('ZSCORE', told, id)
  if at and tonumber(at) <= now and job[1] == stage and job[4] then
    redis.call('ZADD', told, due, id)
    claimed[#claimed + 1] = id
    for f = 2, 8 do claimed[#claimed + 1] = job[f] or '' end
  end
end
return claimed
