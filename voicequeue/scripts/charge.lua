-- charge: claim one admitted job for its POST. After this nobody else may send it.
-- KEYS  root
-- ARGV  now, id, stage, holder (a token of this claim), due (when the claim runs out)
-- RETURNS  {v, attempt, spec, persona_id}; 'closed' = the gate is closed, the job is queued again;
--          nil = there is nothing to do (any more)
local now, id, stage, holder = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local job_key = key('job:' .. id)
local job = redis.call('HMGET', job_key, 'state', 'stage', 'holder')

local function claimed() return redis.call('HMGET', job_key, 'v', 'attempt', 'spec', 'persona_id') end

if job[2] ~= stage then return nil end
-- Asked twice by the same holder: the first answer was lost on its way.
if job[1] == 'charging' and job[3] == holder then return claimed() end
if job[1] ~= 'admitted' then return nil end
if gate_closed(now) then
  move(id, { to = 'queued', stage = stage, reason = 'gate closed' }, now)
  return 'closed'
end
redis.call('HINCRBY', job_key, 'attempt', 1)
redis.call('HSET', job_key, 'holder', holder)
move(id, { to = 'charging', stage = stage, due = ARGV[5] }, now)
return claimed()
