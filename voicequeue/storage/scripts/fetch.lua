-- fetch: claim the songs of one job for a try, if it is due or was handed out.
-- KEYS  root
-- ARGV  now, id, holder (a token of this claim), due (until when nobody else may claim it)
-- RETURNS  the record as a flat list: field, value, …; nil = there is nothing to do (any more)
local now, id, holder, due = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local job_key = key('job:' .. id)
local at = redis.call('ZSCORE', key('archive:pending'), id)
local handed_out = redis.call('ZREM', key('archive:out'), id) == 1
if not at then return nil end
if redis.call('EXISTS', job_key) == 0 then
  redis.call('ZREM', key('archive:pending'), id) -- its record is gone: nothing is left to look after
  return nil
end
-- Asked twice by the same holder: the first answer was lost on its way.
local is_ours = redis.call('HGET', job_key, 'archive.holder') == holder
if not (is_ours or handed_out or tonumber(at) <= now) then return nil end
redis.call('HSET', job_key, 'archive.holder', holder)
redis.call('ZADD', key('archive:pending'), due, id)
return redis.call('HGETALL', job_key)
