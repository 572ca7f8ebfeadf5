-- Orders that upstream refuses with an error that may concern every order, or one job only. An error for two jobs while
-- upstream accepts none concerns all; an error for one job while it accepts others concerns that job.

-- A job fails after this many times its allowed attempts, even if upstream accepted others only at first.
local LONG = 4

-- The longest hold (seconds) if upstream rate-limits two jobs: its longer wait may concern only those two.
local AGREED_MAX_S = 60

-- The most jobs that rest until their recording is checked again that are passed over in one lane, and the longest that
-- they rest (seconds): a later time was written before Redis's clock was set back.
local RESTING_MAX, REST_MAX_S = 1000, 3600

-- Return a predicate for jobs to skip: those that rest after a refusal or a check of their recording, or
-- (`refused_too`) every refused one. Its second value is true where the rest of the lane is to be skipped, too.
local function skips_refused(now, refused_too)
  if redis.call('EXISTS', key('refused'), key('resting')) == 0 then return function() return false end end
  local resting = 0
  return function(id)
    local refused_until = redis.call('ZSCORE', key('refused'), id)
    if refused_until and (refused_too or tonumber(refused_until) > now) then return true end
    local rests_until = tonumber(redis.call('ZSCORE', key('resting'), id) or 0)
    if rests_until <= now or rests_until > now + REST_MAX_S then return false end
    resting = resting + 1
    return true, resting > RESTING_MAX
  end
end

local function end_trials(now)
  if gate_state(now) ~= 'trial' then return end
  redis.call('HDEL', key('gate'), 'out_of_credits', 'unauthorized', 'upstream_down')
  wake_dispatcher()
end

-- Upstream has accepted orders (`accepted`: how many by stage): earlier refusals did not concern all jobs, trials end, and
-- the limit may increase.
local FLOW = { 'limit', 'ceiling', 'streak', 'probe_after', 'step', 'decreased_at', 'failures', 'accepted.voice', 'accepted.music' }
local function upstream_accepted(limits, now, accepted)
  local keys = { key('gate'), key('unanswered:upstream_down') }
  for _, reason in ipairs(REASONS) do keys[#keys + 1] = key('refused:' .. reason) end
  if redis.call('EXISTS', unpack(keys)) > 0 then
    end_trials(now)
    redis.call('DEL', unpack(keys, 2))
  end
  local flow, changed, count, fields = read_fields('flow', FLOW), { accepted_at = now }, 0, {}
  for stage, orders in pairs(accepted) do
    changed['accepted.' .. stage] = (flow['accepted.' .. stage] or 0) + orders
    count = count + orders
  end
  if flow.failures then redis.call('HDEL', key('flow'), 'failures') end
  local total = (flow['accepted.voice'] or 0) + (flow['accepted.music'] or 0) + count
  increase_limit(limits, now, count, total, flow, changed)
  for field, value in pairs(changed) do
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  redis.call('HSET', key('flow'), unpack(fields))
end

-- Return whether upstream accepted any of the orders in these transitions.
local function is_any_accepted(transitions)
  for _, t in ipairs(transitions) do if t.credits > 0 then return true end end
  return false
end

-- The job's order is no longer refused, or no longer to be sent: end a trial that only this job supported.
local function clear_refusal(id)
  redis.call('HDEL', JOB .. id, 'refused')
  redis.call('ZREM', key('refused'), id)
  for _, reason in ipairs(REASONS) do
    if redis.call('SREM', key('refused:' .. reason), id) == 1 then end_trial(reason) end
  end
end

-- Submission is held because of refused jobs, for longer each time: allow a trial with a job enqueued after the hold
-- `pause` seconds after the last refusal, however long the refused jobs rest.
local function allow_early_trial(reason, now, pause)
  local text = redis.call('HGET', key('gate'), reason)
  local hold = text and cjson.decode(text)
  if not (hold and hold.ends_at) then return end
  hold.closed_at, hold.trial_at = now, now + pause
  write_hold(reason, hold)
end

-- Return the holds that keep the gate closed and the time of the latest, if all of them allow an early trial; else nil.
local function early_trial_holds(now)
  local holds, closed_at, gate = {}, 0, redis.call('HGETALL', key('gate'))
  for g = 1, #gate, 2 do
    local reason, hold = gate[g], cjson.decode(gate[g + 1])
    if not has_ended(hold, now) then
      if not (ENDS_WITH_TRIAL[reason] and hold.trial_at and hold.trial_at <= now) then return nil end
      holds[reason], closed_at = hold, math.max(closed_at, hold.closed_at)
    end
  end
  -- A POST to an upstream that does not respond may be charged: no early trial then.
  if holds.upstream_down and tonumber(redis.call('HGET', key('flow'), 'failures') or 0) > 0 then return nil end
  return holds, closed_at
end

-- Start a trial early if a job was enqueued after the gate closed. Returns whether it did.
local function try_early_trial(now, paused)
  local holds, closed_at = early_trial_holds(now)
  if not holds then return false end
  local newest_of = lane_heads(paused, skips_refused(now, true), true)
  for rank = 0, 2 do
    for _, batch in ipairs(redis.call('ZRANGE', key('lanes:' .. rank), 0, 99)) do
      local id = newest_of(rank, batch)
      if id and tonumber(redis.call('HGET', JOB .. id, 'created')) > closed_at then
        for reason, hold in pairs(holds) do
          hold.ends_at = now
          write_hold(reason, hold)
        end
        return true
      end
    end
  end
  return false
end

-- Return how many other jobs were refused for this reason since upstream accepted an order.
local function count_others_refused(reason, id)
  return redis.call('SCARD', key('refused:' .. reason)) - redis.call('SISMEMBER', key('refused:' .. reason), id)
end

-- Return how many other jobs were rate-limited since then, within the last ten minutes.
local function count_others_rate_limited(id, since, now)
  redis.call('ZREMRANGEBYSCORE', key('rate_limited'), '-inf', now - CALM_S)
  local at = tonumber(redis.call('ZSCORE', key('rate_limited'), id) or '-inf')
  return redis.call('ZCOUNT', key('rate_limited'), since, '+inf') - (at >= since and 1 or 0)
end

-- Hold submission for the wait that upstream asked for, or briefly if it asked one job only; decrease the limit if
-- other jobs were rate-limited recently. Returns whether there was no such hold before.
local function rate_limited(id, r, now, is_agreed)
  local wait = r.wait_s > 0 and r.wait_s or r.hold_s
  wait = math.min(wait, is_agreed and AGREED_MAX_S or r.hold_s)
  if count_others_rate_limited(id, now - CALM_S, now) > 0 then
    decrease_limit(now, count_in_state('pending'), wait)
  end
  redis.call('ZADD', key('rate_limited'), now, id)
  return not add_hold('cooldown', now, r.detail, string.format('%.6f', now + wait))
end

-- Return whether the refusal concerns this job only: since its last refusal upstream accepted orders of this stage, and
-- refused no other job.
local function is_own_refusal(id, r, stage, before, accepted, now)
  if not before.accepted or accepted == before.accepted or count_others_refused(r.reason, id) > 0 then return false end
  if r.reason == 'cooldown' then return count_others_rate_limited(id, tonumber(before.at) + 1e-6, now) == 0 end
  if r.reason ~= 'out_of_credits' then return true end
  return tonumber(redis.call('HGET', key('account'), 'credits') or 0) >= PRICE[stage]
end

-- record_refusal: a refused job goes to the end of its lane and rests; it fails after `attempts` refusals during which
-- upstream accepted other jobs. `is_mixed`: upstream accepted others at the same moment.
-- t.refused = {reason, detail, message, failure, hold_s, max_hold_s, max_rest_s, wait_s, attempts}: see Refusal in
-- voicequeue/domain/gate.py.
-- Returns 2 if a trial has started, 3 if submission is now held, else 1.
local function record_refusal(id, t, job, now, is_mixed)
  local r, at = t.refused, tonumber(now)
  local before = job.refused and cjson.decode(job.refused) or { count = 0, own_count = 0 }
  local accepted = tonumber(redis.call('HGET', key('flow'), 'accepted.' .. t.stage) or 0)
  local is_own = is_own_refusal(id, r, t.stage, before, accepted, at)
  local has_others = count_others_refused(r.reason, id) > 0
  local refusal = before -- with what a newer release has stored
  refusal.count, refusal.own_count = before.count + 1, before.own_count + (is_own and 1 or 0)
  refusal.accepted, refusal.at, refusal.message = accepted, now, r.message
  if refusal.own_count >= r.attempts
    or (refusal.own_count > 0 and not has_others and refusal.count >= LONG * r.attempts) then
    t.to, t.reason, t.set = 'failed', cjson.decode(r.failure).code, { failure = r.failure, settled = now }
    return 1
  end
  local is_rate_limit = r.reason == 'cooldown'
  local is_shared = is_rate_limit and not is_own and count_others_rate_limited(id, at - CALM_S, at) > 0
  local backoff = math.min(r.max_rest_s, r.hold_s * 2 ^ (refusal.count - 1))
  local rest = is_shared and r.wait_s or math.max(r.wait_s, backoff)
  t.set.requeued_at, t.set.refused = now, cjson.encode(refusal)
  redis.call('ZADD', key('refused'), string.format('%.6f', at + rest), id)
  if is_own or (is_mixed and not is_rate_limit) then return 1 end
  redis.call('SADD', key('refused:' .. r.reason), id)
  if is_rate_limit then return rate_limited(id, r, at, has_others and not is_mixed) and 3 or 1 end
  if not has_others then return start_trial(r.reason, now, r.detail) and 2 or 1 end
  local is_new = hold_with_backoff(r.reason, now, r.detail, r.hold_s, r.max_hold_s)
  allow_early_trial(r.reason, at, r.hold_s)
  return is_new and 3 or 1
end
