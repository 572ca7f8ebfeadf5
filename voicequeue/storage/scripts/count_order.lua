-- count_order: count an accepted order that the job does not use, because it was resubmitted or has its result. The job
-- itself and its version stay unchanged.
-- KEYS  root
-- ARGV  now, id, stage of the order, attempt, task id, credits, reason
-- RETURNS  1 = counted, 0 = it was counted before, nil = there is no such job
local now, id, reason = ARGV[1], ARGV[2], ARGV[7]
local order = { stage = ARGV[3], attempt = tonumber(ARGV[4]), task_id = ARGV[5], credits = tonumber(ARGV[6]) }
local job = read_record(id)
if not job.state then return nil end
local orders, credits, submissions = count_order(job, order, now)
if not orders then return 0 end
redis.call('HSET', JOB .. id, 'orders', orders, 'credits', credits, 'submissions', submissions)
drop_summary_of(id)
redis.call('RPUSH', TIMELINE .. id, cjson.encode({
  at = now, state = job.state, stage = order.stage, reason = reason, task_id = order.task_id, attempt = order.attempt }))
add_event(id, job.batch, job.state, job.stage, reason)
return 1
