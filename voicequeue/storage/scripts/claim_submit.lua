-- claim_submit: claim admitted jobs for submission. No other worker can submit them after this.
-- KEYS  root
-- ARGV  now, stage, holder (token of this call), due (when the claims expire), the four limits, ids
-- RETURNS  for each id one of
--          {version, attempt, spec, persona_id}: claimed
--          {version, 'unsure'}: a retry by the same holder, after the claim has expired
--          {seconds}: the submit rate is used up; retry after this time
--          nil: there is nothing to submit, or the job is queued again, because the gate is closed or the limits of its
--          batch, a budget or the available credits do not allow its POST
local now, stage, holder = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local limits, gate = limits_from(5), gate_state(now, stage)

local function claim_of(id, job, version)
  return { version, job.attempt, unpack(redis.call('HMGET', JOB .. id, 'spec', 'persona_id')) }
end

local seen = {}
local function claim(id)
  -- A repeated id is no lost reply: one claim is one POST.
  if seen[id] then return false end
  seen[id] = true
  local job = read_record(id, SUBMISSIONS, RECHECK)
  if job.stage ~= stage then return false end
  if job.state == 'charging' or job.state == 'unsure' then
    -- A retry by the same holder: its first reply was lost.
    if job.holder ~= holder then return false end
    return job.state == 'charging' and claim_of(id, job, job.version) or { job.version, 'unsure' }
  end
  if job.state ~= 'admitted' then return false end
  -- Another job has created the voice since the admission: it is not paid for twice.
  if stage == 'voice' and job.shared_voice and use_if_created(id, job.shared_voice, ARGV[1]) then return false end
  local is_closed = gate == 'closed' or (gate == 'trial' and count_in_state('charging') > 0)
  local reason = is_closed and 'gate closed' or submit_limit_reason(job, limits.floor, now)
  if reason then
    transition(id, { to = 'queued', stage = stage, reason = reason }, ARGV[1])
    return false
  end
  local wait = take_rate_token(now, limits.rate)
  if wait > 0 then
    set_score(FLIGHT, id, now + wait)
    return { tostring(wait) }
  end
  local attempt = tostring((job.attempt or 0) + 1)
  local set = { attempt = attempt, holder = holder, submissions = with_submission(job, attempt, PRICE[stage], now) }
  transition(id, { to = 'charging', stage = stage, due = ARGV[4], set = set }, ARGV[1], job)
  return claim_of(id, job, tostring(job.version + 1))
end

local replies = {}
for a = 9, #ARGV do replies[a - 8] = claim(ARGV[a]) end
return replies
