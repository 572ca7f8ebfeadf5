-- reschedule_polls: set the time of the next poll of jobs.
-- KEYS  root
-- ARGV  id, version, due, not_ready_at ('' = unknown), failure_report ('' = unchanged, '-' = none), clips ('' =
--       unchanged), id, …
-- RETURNS  the ids that still had this version, and so are rescheduled
local rescheduled, has_responded = {}, false
for a = 1, #ARGV, 6 do
  local id, due, not_ready_at, failure_report, clips = ARGV[a], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4], ARGV[a + 5]
  local job_key = JOB .. id
  local job = redis.call('HMGET', job_key, 'version', 'state')
  if job[1] == ARGV[a + 1] and due_index(job[2]) then
    set_score(due_index(job[2]), id, due)
    if not_ready_at ~= '' then redis.call('HSET', job_key, 'not_ready_at', not_ready_at) end
    has_responded = has_responded or not_ready_at ~= ''
    if failure_report == '-' then
      redis.call('HDEL', job_key, 'failure_report')
    elseif failure_report ~= '' then
      redis.call('HSET', job_key, 'failure_report', failure_report)
    end
    if clips ~= '' then redis.call('HSET', job_key, 'clips', clips) end
    rescheduled[#rescheduled + 1] = id
  end
end
if has_responded then upstream_responded() end
return rescheduled
