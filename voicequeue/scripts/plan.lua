-- plan: say when jobs of which something is to come are due again.
-- KEYS  root
-- ARGV  due, when they were not ready yet ('' = not known), then id, v, id, v, …
-- RETURNS  the ids that still stood at this version, and so are planned
local planned = {}
for a = 3, #ARGV, 2 do
  local id = ARGV[a]
  local job = redis.call('HMGET', key('job:' .. id), 'v', 'state')
  if job[1] == ARGV[a + 1] and due_key(job[2]) then
    redis.call('ZADD', due_key(job[2]), ARGV[1], id)
    if ARGV[2] ~= '' then redis.call('HSET', key('job:' .. id), 'asked', ARGV[2]) end
    planned[#planned + 1] = id
  end
end
return planned
