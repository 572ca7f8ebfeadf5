-- claim_poll: claim those of the jobs whose order is due for a poll, and other jobs of the stage that are due as
-- well, or soon, so that jobs created one by one share messages over time.
-- A second message for the same job finds it not due and does nothing, so messages never multiply.
-- KEYS  root
-- ARGV  now, stage, due (when the claims expire), until when other jobs are due soon, their maximum number, then ids
-- RETURNS  flat list: id, version, state, task_id, submitted_at, not_ready_at, next_stage, model, clips, failure_report,
--          resubmit, id, …
local now, stage, due, soon, max = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local POLLED = { pending = true, succeeded = true, failed = true, cancelled = true }
local FIELDS = 11
local claims = {}

local function claim(id, due_by)
  local job = redis.call('HMGET', key('job:' .. id), 'stage', 'version', 'state', stage .. '.task', 'submitted_at',
    'not_ready_at', 'next_stage', 'model', 'clips', 'failure_report', 'resubmit')
  local index = POLLED[job[3]] and due_index(job[3])
  local at = index and redis.call('ZSCORE', index, id)
  if at and tonumber(at) <= due_by and job[1] == stage and job[4] then
    redis.call('ZADD', index, due, id)
    local submitted_at = exclude_idle_time(id, job[3], now - at)
    if submitted_at then job[5], job[6] = submitted_at, '0' end
    claims[#claims + 1] = id
    for f = 2, FIELDS do claims[#claims + 1] = job[f] or '' end
  end
end

for a = 6, #ARGV do claim(ARGV[a], now) end
-- Only a worker that polls anyway takes others; jobs overdue for longer are reconciled by maintenance.
if #claims > 0 and max > 0 then
  local since, full = now - (soon - now), #claims + max * FIELDS
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('in_flight'), since, soon, 'LIMIT', 0, 4 * max)) do
    if #claims < full then claim(id, soon) end
  end
end
return claims
