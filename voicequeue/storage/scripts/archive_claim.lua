-- archive_claim: claim one job for archiving its songs, if it is due or was handed out.
-- KEYS  root
-- ARGV  now, id, holder (a token of this claim), claim_end (no other worker can claim the job before)
-- RETURNS  the record as a flat list: field, value, …; nil = the job cannot be claimed
local now, id, holder, claim_end = unpack(ARGV)
local job_key = JOB .. id
local due, is_claimable = end_lease('archive', id, now)
if not due then return nil end
if redis.call('EXISTS', job_key) == 0 then
  redis.call('ZREM', key('archive:pending'), id) -- purged: there is nothing left to archive
  return nil
end
-- The same holder asks twice if the first reply was lost.
if not is_claimable and redis.call('HGET', job_key, 'archive.holder') ~= holder then return nil end
redis.call('HSET', job_key, 'archive.holder', holder)
redis.call('ZADD', key('archive:pending'), claim_end, id)
return redis.call('HGETALL', job_key)
