-- plan: say when jobs of which something is to come are due again.
-- KEYS  root
-- ARGV  id, v, due, when it was not ready yet ('' = not known), doubt ('' = as it is, '-' = none any more), clips ('' = as
--       they are), id, …
-- RETURNS  the ids that still stood at this version, and so are planned
local planned, is_answered = {}, false
for a = 1, #ARGV, 6 do
  local id, due, asked, doubt, clips = ARGV[a], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4], ARGV[a + 5]
  local job = redis.call('HMGET', key('job:' .. id), 'v', 'state')
  if job[1] == ARGV[a + 1] and due_key(job[2]) then
    redis.call('ZADD', due_key(job[2]), due, id)
    if asked ~= '' then redis.call('HSET', key('job:' .. id), 'asked', asked) end
    is_answered = is_answered or asked ~= ''
    if doubt == '-' then
      redis.call('HDEL', key('job:' .. id), 'doubt')
    elseif doubt ~= '' then
      redis.call('HSET', key('job:' .. id), 'doubt', doubt)
    end
    if clips ~= '' then redis.call('HSET', key('job:' .. id), 'clips', clips) end
    planned[#planned + 1] = id
  end
end
if is_answered then answered() end
return planned
