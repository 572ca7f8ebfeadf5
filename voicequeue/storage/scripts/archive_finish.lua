-- archive_finish: renew a claim, with a file that was archived, or record the outcome of its attempt.
-- KEYS  root
-- ARGV  now, id, holder, outcome ('renew' | 'done' | 'retry' | 'failed'), due (of renew: the new end of the claim; of
--       retry: the next attempt), reason; of renew optionally the file's field and JSON
-- RETURNS  1 = written, 0 = the claim expired and another worker holds the job
local now, id, holder, outcome, due, reason, field, file = unpack(ARGV)
local job_key = JOB .. id
if redis.call('HGET', job_key, 'archive.holder') ~= holder then return 0 end
if outcome == 'renew' then
  if field and redis.call('HSETNX', job_key, field, file) == 1 then
    add_to_total(redis.call('HGET', job_key, 'batch') or '', 'archive.files')
  end
  redis.call('ZADD', key('archive:pending'), 'XX', due, id)
  return 1
end
redis.call('HDEL', job_key, 'archive.holder')
if outcome == 'done' then
  redis.call('HDEL', job_key, 'archive.since', 'archive.attempts', 'archive.reason')
  add_to_total(redis.call('HGET', job_key, 'batch') or '', 'archive.jobs')
  set_archive_state(id, 'done')
  return 1
end
redis.call('HINCRBY', job_key, 'archive.attempts', 1)
redis.call('HSET', job_key, 'archive.reason', reason)
if outcome == 'failed' then set_archive_state(id, 'failed', now) else set_archive_state(id, 'pending', due) end
return 1
