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
local claims, is_seen = {}, {}

-- Claim a job that is due by then, if it is polled in flight at `at`, or in another index.
local function claim(id, due_by, at)
  if is_seen[id] then return end
  is_seen[id] = true
  local job = redis.call('HMGET', JOB .. id, 'stage', 'version', 'state', stage .. '.task', 'submitted_at',
    'not_ready_at', 'next_stage', 'model', 'clips', 'failure_report', 'resubmit')
  local index = POLLED[job[3]] and due_index(job[3])
  if index and index ~= FLIGHT then at = redis.call('ZSCORE', index, id) end
  if index and at and tonumber(at) <= due_by and job[1] == stage and job[4] then
    set_score(index, id, due)
    local submitted_at = exclude_idle_time(id, job[3], now - at)
    if submitted_at then job[5], job[6] = submitted_at, '0' end
    claims[#claims + 1] = id
    for f = 2, FIELDS do claims[#claims + 1] = job[f] or '' end
  end
end

if ARGV[6] then
  local times = redis.call('ZMSCORE', FLIGHT, unpack(ARGV, 6))
  for a = 6, #ARGV do claim(ARGV[a], now, times[a - 5]) end
end
-- Only a worker that polls anyway takes others; jobs overdue for longer are reconciled by maintenance.
if #claims > 0 and max > 0 then
  local since, full = now - (soon - now), #claims + max * FIELDS
  flush_scores()
  local others = redis.call('ZRANGEBYSCORE', FLIGHT, since, soon, 'WITHSCORES', 'LIMIT', 0, 4 * max)
  for n = 1, #others, 2 do
    if #claims < full then claim(others[n], soon, others[n + 1]) end
  end
end
return claims
