-- overdue: jobs of which something is to come, and that nobody has looked after although they were due.
-- They are put off by one patience, so that two pulses never hand out the same job at once.
-- KEYS  root
-- ARGV  now, patience (seconds past due), most to return
-- RETURNS  flat list: id, v, state, stage, id, …
local now, patience = tonumber(ARGV[1]), tonumber(ARGV[2])
local found = {}
for _, due in ipairs({ key('flight'), key('late') }) do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now - patience, 'LIMIT', 0, ARGV[3])) do
    local job = redis.call('HMGET', key('job:' .. id), 'v', 'state', 'stage')
    if job[1] then
      redis.call('ZADD', due, now, id)
      for _, value in ipairs({ id, job[1], job[2], job[3] }) do found[#found + 1] = value end
    else
      redis.call('ZREM', due, id) -- its record is gone: nothing is left to look after
    end
  end
end
return found
