-- claim_poll: claim those of the jobs whose order is due for a poll, and others that are due as well, or soon, so that
-- jobs created one by one share messages over time.
-- A second message for the same job finds it not due and does nothing, so messages never multiply.
-- KEYS  root
-- ARGV  now, due (when the claims expire), since when and until when other jobs are due, their maximum number, then ids;
--       without ids, any other jobs are claimed
-- RETURNS  flat list: id, version, state, stage, task_id, submitted_at, not_ready_at, next_stage, model, clips,
--          failure_report, resubmit, id, …
local now, due, since, soon, max = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local POLLED = { pending = true, succeeded = true, failed = true, cancelled = true }
local FIELDS = 12
local claims, size, is_seen = {}, 0, {}

-- Claim a job that is due by then, if it is polled in flight at `at`, or in another index.
local function claim(id, due_by, at)
  if is_seen[id] then return end
  is_seen[id] = true
  local job = redis.call('HMGET', JOB .. id, 'music.task', 'version', 'state', 'stage', 'voice.task', 'submitted_at',
    'not_ready_at', 'next_stage', 'model', 'clips', 'failure_report', 'resubmit')
  local index = POLLED[job[3]] and due_index(job[3])
  if index and index ~= FLIGHT then at = redis.call('ZSCORE', index, id) end
  if job[4] == 'music' then job[5] = job[1] elseif job[4] ~= 'voice' then return end
  if index and at and tonumber(at) <= due_by and job[5] then
    set_score(index, id, due)
    local submitted_at = exclude_idle_time(id, job[3], now - at)
    if submitted_at then job[6], job[7] = submitted_at, '0' end
    claims[size + 1] = id
    for f = 2, FIELDS do claims[size + f] = job[f] or '' end
    size = size + FIELDS
  end
end

if ARGV[6] then
  local times = redis.call('ZMSCORE', FLIGHT, unpack(ARGV, 6))
  for a = 6, #ARGV do claim(ARGV[a], now, times[a - 5]) end
end
-- Only a worker that polls anyway takes others; jobs overdue for longer are reconciled by maintenance.
if max > 0 and (size > 0 or not ARGV[6]) then
  local full = size + max * FIELDS
  flush_scores()
  local page, start, others = 4 * max, 0, nil
  repeat -- jobs that wait for a process have earlier times
    others = redis.call('ZRANGEBYSCORE', FLIGHT, since, soon, 'WITHSCORES', 'LIMIT', start, page)
    for n = 1, #others, 2 do
      if size < full then claim(others[n], soon, others[n + 1]) end
    end
    start = start + page
  until size >= full or #others < 2 * page
end
return claims
