-- overdue: jobs of which something is to come, and that nobody has looked after although they were due.
-- They are put off by one patience, so that two pulses never hand out the same job at once.
-- KEYS  root
-- ARGV  now, patience (seconds past due), most to return, the longest that a job in flight is ever put off (seconds)
-- RETURNS  flat list: id, v, state, stage, id, …
local now, patience, latest = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[1] + ARGV[4]
-- What is due later than that was put off before Redis's clock was set back.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('flight'), '(' .. latest, '+inf', 'LIMIT', 0, ARGV[3])) do
  redis.call('ZADD', key('flight'), latest, id)
end
local found = {}
for _, due in ipairs({ key('flight'), key('late') }) do
  local ids = redis.call('ZRANGEBYSCORE', due, '-inf', now - patience, 'WITHSCORES', 'LIMIT', 0, ARGV[3])
  for i = 1, #ids, 2 do
    local id, at = ids[i], ids[i + 1]
    local job = redis.call('HMGET', key('job:' .. id), 'v', 'state', 'stage')
    if job[1] then
      redis.call('ZADD', due, now, id)
      without_idle_time(id, job[2], now - at)
      for _, value in ipairs({ id, job[1], job[2], job[3] }) do found[#found + 1] = value end
    else
      redis.call('ZREM', due, id) -- its record is gone: nothing is left to look after
    end
  end
end
return found
