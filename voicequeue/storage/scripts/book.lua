-- book: count an order that upstream took and the job does without: a newer one was sent, or it has its result. The
-- job itself stays as it is, at its version.
-- KEYS  root
-- ARGV  now, id, stage of the order, attempt, task id, credits, reason
-- RETURNS  1 = it is counted now, 0 = it was before, nil = there is no such job
local now, id, reason = ARGV[1], ARGV[2], ARGV[7]
local order = { stage = ARGV[3], attempt = tonumber(ARGV[4]), task_id = ARGV[5], credits = tonumber(ARGV[6]) }
local job = record(id)
if not job.state then return nil end
local orders, credits = book(job, order, now)
if not orders then return 0 end
redis.call('HSET', key('job:' .. id), 'orders', orders, 'credits', credits)
redis.call('RPUSH', key('timeline:' .. id), cjson.encode({
  at = now, state = job.state, stage = order.stage, reason = reason, task_id = order.task_id, attempt = order.attempt }))
announce(id, job.batch, job.state, job.stage, reason)
return 1
