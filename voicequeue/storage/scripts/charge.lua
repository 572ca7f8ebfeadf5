-- charge: claim admitted jobs for their POSTs. After this nobody else may send them.
-- KEYS  root
-- ARGV  now, stage, holder (a token of this asking), due (when the claims run out), the four limits, ids
-- RETURNS  for each id one of
--          {v, attempt, spec, persona_id}: claimed
--          {v, 'unsure'}: the same holder asks so late that the claim was given up meanwhile
--          {seconds}: too many POSTs this minute, come again then
--          nil: there is nothing to do (any more), or it is queued again, for the gate is closed, or the limits of
--          its batch or the credits left do not allow its POST (any more)
local now, stage, holder = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local limits, gate = limits_from(5), gate_of(now, stage)

local function claimed(id) return redis.call('HMGET', key('job:' .. id), 'v', 'attempt', 'spec', 'persona_id') end

local asked = {}
local function charge(id)
  -- Twice in one asking is no lost answer: one claim is one POST.
  if asked[id] then return false end
  asked[id] = true
  local job = record(id)
  if job.stage ~= stage then return false end
  if job.state == 'charging' or job.state == 'unsure' then
    -- Asked twice by the same holder: the first answer was lost on its way.
    if redis.call('HGET', key('job:' .. id), 'holder') ~= holder then return false end
    return job.state == 'charging' and claimed(id) or { job.v, 'unsure' }
  end
  if job.state ~= 'admitted' then return false end
  -- The voice has come from elsewhere since it was admitted: it is not paid for twice.
  if stage == 'voice' and job.shares and takes(id, job.shares, ARGV[1]) then return false end
  local is_shut = gate == 'closed' or (gate == 'trial' and redis.call('ZCARD', key('state:charging')) > 0)
  local refused = is_shut and 'gate closed' or charge_refused(job.batch, limits.floor)
  if refused then
    move(id, { to = 'queued', stage = stage, reason = refused }, ARGV[1], job)
    return false
  end
  local wait = rate_wait(now, limits.rate)
  if wait > 0 then
    redis.call('ZADD', key('flight'), now + wait, id)
    return { tostring(wait) }
  end
  local set = { attempt = (job.attempt or 0) + 1, holder = holder }
  move(id, { to = 'charging', stage = stage, due = ARGV[4], set = set }, ARGV[1], job)
  return claimed(id)
end

local found = {}
for a = 9, #ARGV do found[a - 8] = charge(ARGV[a]) end
return found
