-- charge: claim one admitted job for its POST. After this nobody else may send it.
-- KEYS  root
-- ARGV  now, id, stage, holder (a token of this claim), due (when the claim runs out), then the limits
-- RETURNS  {v, attempt, spec, persona_id, 1 = upstream took others since it forbade this one}; {seconds} = too many POSTs this minute, come again then;
--          'closed' = the gate is closed, the job is queued again; {v, 'unsure'} = the same holder asks so late that
--          the claim was given up meanwhile; nil = there is nothing to do (any more)
local now, id, stage, holder = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local job_key = key('job:' .. id)
local job = redis.call('HMGET', job_key, 'state', 'stage', 'holder', 'shares')

local function claimed()
  local found = redis.call('HMGET', job_key, 'v', 'attempt', 'spec', 'persona_id', 'forbidden')
  local took = found[5] and redis.call('HGET', key('flow'), 'took')
  found[5] = took and tonumber(took) > tonumber(found[5]) and 1 or 0
  return found
end

if job[2] ~= stage then return nil end
-- Asked twice by the same holder: the first answer was lost on its way.
if job[1] == 'charging' and job[3] == holder then return claimed() end
if job[1] == 'unsure' and job[3] == holder then return { redis.call('HGET', job_key, 'v'), 'unsure' } end
if job[1] ~= 'admitted' then return nil end
-- The voice has come from elsewhere since it was admitted: it is not paid for twice.
if stage == 'voice' and job[4] and takes(id, job[4], ARGV[1]) then return nil end
local gate = gate_of(now, stage)
if gate == 'closed' or (gate == 'trial' and redis.call('ZCARD', key('state:charging')) > 0) then
  move(id, { to = 'queued', stage = stage, reason = 'gate closed' }, ARGV[1])
  return 'closed'
end
local wait = rate_wait(now, limits_from(6).rate)
if wait > 0 then
  redis.call('ZADD', key('flight'), now + wait, id)
  return { tostring(wait) }
end
redis.call('HINCRBY', job_key, 'attempt', 1)
redis.call('HSET', job_key, 'holder', holder)
move(id, { to = 'charging', stage = stage, due = ARGV[5] }, ARGV[1])
return claimed()
