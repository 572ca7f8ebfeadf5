-- overdue: jobs in flight that nobody has looked after although they were due. They are put off by
-- one patience, so that two pulses never hand out the same job at once.
-- KEYS  root
-- ARGV  now, patience (seconds past due), most to return
-- RETURNS  flat list: id, v, state, stage, id, …
local now, patience = tonumber(ARGV[1]), tonumber(ARGV[2])
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('flight'), '-inf', now - patience, 'LIMIT', 0, ARGV[3])) do
  local job = redis.call('HMGET', key('job:' .. id), 'v', 'state', 'stage')
  if job[1] then
    redis.call('ZADD', key('flight'), now, id)
    for _, value in ipairs({ id, job[1], job[2], job[3] }) do found[#found + 1] = value end
  else
    redis.call('ZREM', key('flight'), id) -- its record is gone: nothing is left to look after
  end
end
return found
