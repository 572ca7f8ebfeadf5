-- plan: say when jobs of which something is to come are due again.
-- KEYS  root
-- ARGV  id, v, due, when it was not ready yet ('' = not known), id, …
-- RETURNS  the ids that still stood at this version, and so are planned
local planned, is_answered = {}, false
for a = 1, #ARGV, 4 do
  local id, due, asked = ARGV[a], ARGV[a + 2], ARGV[a + 3]
  local job = redis.call('HMGET', key('job:' .. id), 'v', 'state')
  if job[1] == ARGV[a + 1] and due_key(job[2]) then
    redis.call('ZADD', due_key(job[2]), due, id)
    if asked ~= '' then redis.call('HSET', key('job:' .. id), 'asked', asked) end
    is_answered = is_answered or asked ~= ''
    planned[#planned + 1] = id
  end
end
if is_answered then answered() end
return planned
