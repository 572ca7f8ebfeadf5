-- plan: say when jobs that still wait for upstream are due again.
-- KEYS  root
-- ARGV  due, then id, v, id, v, …
-- RETURNS  the ids that still stood at this version, and so are planned
local planned = {}
for a = 2, #ARGV, 2 do
  local id = ARGV[a]
  if redis.call('HGET', key('job:' .. id), 'v') == ARGV[a + 1] then
    redis.call('ZADD', key('flight'), 'XX', ARGV[1], id)
    planned[#planned + 1] = id
  end
end
return planned
