-- fetched: write what a try came to: a file that lies in the archive now, or how the try ended.
-- KEYS  root
-- ARGV  now, id, holder, 'kept' | 'done' | 'later' | 'failed', due (of kept: when the claim runs out; of later: when
--       to try again), reason; of kept, where there is one: the file's field and JSON
-- RETURNS  1 = written, 0 = the claim is somebody else's by now
local now, id, holder, became, due, reason, field, file = unpack(ARGV)
local job_key = key('job:' .. id)
if redis.call('HGET', job_key, 'archive.holder') ~= holder then return 0 end
if became == 'kept' then
  if field and redis.call('HSETNX', job_key, field, file) == 1 then
    redis.call('HINCRBY', key('counters'), 'archive.files', 1)
  end
  redis.call('ZADD', key('archive:pending'), 'XX', due, id)
  return 1
end
redis.call('HDEL', job_key, 'archive.holder')
if became == 'done' then
  redis.call('HDEL', job_key, 'archive.since', 'archive.tries', 'archive.reason')
  redis.call('HINCRBY', key('counters'), 'archive.jobs', 1)
  in_archive(id, 'done')
  return 1
end
redis.call('HINCRBY', job_key, 'archive.tries', 1)
redis.call('HSET', job_key, 'archive.reason', reason)
in_archive(id, became == 'failed' and 'failed' or 'pending', became == 'failed' and now or due)
return 1
