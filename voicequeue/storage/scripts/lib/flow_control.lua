-- Flow control: the gate and its holds, the limit of jobs in flight, the submit rate, the available credits.

-- Holds that end with a trial: after their time, one job at a time is submitted until upstream accepts one.
local ENDS_WITH_TRIAL = { out_of_credits = true, unauthorized = true, upstream_down = true }

local function has_ended(hold, now) return hold.ends_at and tonumber(hold.ends_at) <= tonumber(now) end

-- Return 'open', 'trial' or 'closed', for one stage or (nil) for all, and during a trial how many failed before.
local function gate_state(now, stage)
  local state, failures, gate = 'open', 0, redis.call('HGETALL', key('gate'))
  for g = 1, #gate, 2 do
    local reason, hold = gate[g], cjson.decode(gate[g + 1])
    local is_over = has_ended(hold, now)
    if is_over and ENDS_WITH_TRIAL[reason] then
      state, failures = 'trial', math.max(failures, hold.failures)
    elseif is_over then
      redis.call('HDEL', key('gate'), reason)
    elseif reason:sub(1, 7) ~= 'paused.' or reason == 'paused.' .. (stage or '') then
      return 'closed', 0
    end
  end
  return state, failures
end

local function paused_stages()
  local holds = redis.call('HMGET', key('gate'), 'paused.voice', 'paused.music')
  return { voice = holds[1] ~= false, music = holds[2] ~= false }
end

local function write_hold(reason, hold) redis.call('HSET', key('gate'), reason, cjson.encode(hold)) end

-- Return the hold with this reason, also during its trial; nil if there is none or it is over.
local function current_hold(reason, now)
  local text = redis.call('HGET', key('gate'), reason)
  local hold = text and cjson.decode(text) or nil
  return hold and (not has_ended(hold, now) or ENDS_WITH_TRIAL[reason]) and hold or nil
end

-- Add a hold, or extend an existing one to the later end. Returns the hold that existed before.
local function add_hold(reason, now, detail, ends_at)
  local before = current_hold(reason, now)
  if before and ends_at and (not before.ends_at or tonumber(before.ends_at) > tonumber(ends_at)) then
    ends_at = before.ends_at
  end
  if before and detail == '' then detail = before.detail end
  local hold = { since = now, failures = 0 }
  for field, value in pairs(before or {}) do hold[field] = value end -- with what a newer release has stored
  hold.detail, hold.ends_at, hold.failures, hold.closed_at, hold.trial_at = detail, ends_at, hold.failures + 1, nil, nil
  write_hold(reason, hold)
  return before
end

-- Submit one order at a time until upstream accepts one; an existing hold stays. Returns whether there was none.
local function start_trial(reason, now, detail)
  if current_hold(reason, now) then return false end
  write_hold(reason, { since = now, detail = detail, ends_at = now, failures = 0 })
  return true
end

-- Hold submission for `pause` seconds, doubled by each failed trial, up to `max_pause` (nil: until an operator
-- resumes). Orders sent before the hold do not extend it. Returns whether the hold is new.
local function hold_with_backoff(reason, now, detail, pause, max_pause)
  local before = current_hold(reason, now)
  if before and not has_ended(before, now) then return false end
  local wait = max_pause and math.min(max_pause, pause * 2 ^ (before and before.failures or 0))
  add_hold(reason, now, detail, wait and string.format('%.6f', now + wait))
  return not before or before.failures == 0 or not max_pause
end

-- End a trial unless a refused order still supports it.
local function end_trial(reason)
  local text = redis.call('HGET', key('gate'), reason)
  if not text or cjson.decode(text).failures > 0 or redis.call('EXISTS', key('refused:' .. reason)) == 1 then return end
  redis.call('HDEL', key('gate'), reason)
  wake_dispatcher()
end

-- Upstream has responded to a request: earlier failures did not concern every request.
local REASONS = { 'out_of_credits', 'unauthorized', 'upstream_down', 'cooldown' }
local function upstream_responded()
  local keys = {}
  for i, reason in ipairs(REASONS) do keys[i] = key('unanswered:' .. reason) end
  if redis.call('DEL', unpack(keys)) == 0 then return end
  redis.call('HDEL', key('flow'), 'failures')
  end_trial('unauthorized')
  end_trial('out_of_credits')
end

-- The smallest submit rate (POSTs a minute); the same as in voicequeue/domain/gate.py.
local RATE_MIN = 0.01

-- Return the limits from four ARGV from `a` on: maximum in flight, initial in flight, POSTs a minute ('' = unlimited),
-- minimum balance. Limits set at run time take precedence.
local function limits_from(a)
  local set = redis.call('HMGET', key('limits'), 'in_flight', 'submit_rate', 'min_balance')
  local rate = tonumber(set[2] or ARGV[a + 2]) or 0
  return { max = tonumber(set[1] or ARGV[a]), initial = tonumber(ARGV[a + 1]),
    rate = rate > 0 and math.max(rate, RATE_MIN) or nil, floor = tonumber(set[3] or ARGV[a + 3]) }
end

-- How many jobs may be in flight is adapted to upstream: one more for each accepted order while all slots are used,
-- until upstream rate-limits; then half as many, and quickly back up to the `ceiling`, the number that was accepted
-- before. Beyond the ceiling, one more is probed once all slots were filled again. A successful probe halves the number of
-- orders before the next one (`probe_after`), and doubles its `step`; a failed one quadruples that number, and is at
-- least four times the number of slots. A probe has failed if upstream rate-limits before all slots were filled twice.
-- Upstream also rate-limits for reasons other than the number in flight: from these the limit must recover.
-- After CALM_S seconds without rate limiting, filling all slots once is enough, because upstream's capacity may have
-- changed.
local PROBE_AFTER, PROBE_AFTER_MAX, CALM_S = 4, 400, 600

local function current_limit(limits)
  return math.min(limits.max, tonumber(redis.call('HGET', key('flow'), 'limit') or limits.initial))
end

-- Increase the limit for this many accepted orders, of `total` in all: set the fields of `flow` that change in `changed`.
local function increase_limit(limits, now, orders, total, flow, changed)
  local limit, ceiling = tonumber(flow.limit or limits.initial), tonumber(flow.ceiling or limits.max)
  local streak, probe_after = tonumber(flow.streak or 0), tonumber(flow.probe_after or PROBE_AFTER)
  local step = tonumber(flow.step or 1)
  if flow.decreased_at and now - tonumber(flow.decreased_at) >= CALM_S then probe_after = math.min(probe_after, limit) end
  flush_scores()
  local used, pending = redis.call('ZCARD', key('in_flight')), count_in_state('pending')
  local before = { limit = limit, ceiling = ceiling, streak = streak }
  -- Other orders were in transit when upstream rate-limited, and it accepted them.
  ceiling = math.max(ceiling, pending)
  for _ = 1, orders do
    if limit >= limits.max or used < limit / 2 or (limit >= ceiling and used < limit) then break end
    if limit < ceiling then
      limit = limit + 1
    elseif streak + 1 < probe_after then
      streak = streak + 1
    else
      limit = math.min(limits.max, limit + step)
      ceiling, streak, probe_after, step = limit, 0, math.max(1, math.floor(probe_after / 2)), math.min(2 * step, limits.max)
      changed.probe_after, changed.step, changed.probed_at = probe_after, step, total
    end
  end
  for field, value in pairs({ limit = limit, ceiling = ceiling, streak = streak }) do
    if value ~= before[field] then changed[field] = value end
  end
end

-- Halve the limit from what upstream accepts (`accepted`), once per `pause` seconds: responses to orders sent before
-- the decrease carry no new information.
local function decrease_limit(now, accepted, pause)
  local flow = redis.call('HMGET', key('flow'), 'decreased_at', 'probe_after', 'limit', 'ceiling', 'probed_at',
    'accepted.voice', 'accepted.music')
  if flow[1] and tonumber(now) < tonumber(flow[1]) + pause then return end
  local ceiling, limit = math.max(1, accepted), tonumber(flow[3] or 0)
  -- Below the ceiling, upstream's capacity has shrunk; at a limit of one, even one job is too many: no probe has failed.
  local filled = tonumber(flow[6] or 0) + tonumber(flow[7] or 0) - tonumber(flow[5] or 0)
  local is_probe = limit > 1 and limit >= tonumber(flow[4] or limit + 1) and filled < 2 * limit
  redis.call('HSET', key('flow'), 'limit', math.max(1, math.floor(ceiling / 2)), 'ceiling', ceiling, 'streak', 0,
    'step', 1, 'decreased_at', now,
    'probe_after', math.min(PROBE_AFTER_MAX, is_probe and PROBE_AFTER * math.max(ceiling, flow[2] or 1) or ceiling))
end

-- Take a token of the submit rate (GCRA; `rate` a minute, a burst of one second's worth, at least one). Returns the
-- seconds until the next token; 0 if one was taken.
local function take_rate_token(now, rate)
  if not rate then return 0 end
  local interval = 60 / rate
  -- A time written at another rate, or by a clock that was ahead, delays no longer than this rate would.
  local tat = math.min(tonumber(redis.call('HGET', key('flow'), 'tat') or 0), now + math.max(1, interval))
  local free_at = math.max(tat, now)
  local wait = free_at - now - math.max(0, 1 - interval)
  if wait > 1e-6 then return wait end
  redis.call('HSET', key('flow'), 'tat', free_at + interval)
  return 0
end

local function credits_spent()
  local spent = redis.call('HMGET', key('counters'), 'voice.credits', 'music.credits', 'corrected.credits')
  return tonumber(spent[1] or 0) + tonumber(spent[2] or 0) + tonumber(spent[3] or 0)
end

-- Return the cost of the current orders of all jobs in this state.
local function cost_of_state(state)
  local counts = counts_in_state(state)
  return counts.voice * PRICE.voice + counts.music * PRICE.music
end

-- Return upstream's report of the credits on the account (false before the first one), the shortage (JSON, or false), and
-- how many more credits there may be. All are read once: no script that calls this spends credits.
local account
local function account_fields()
  account = account or redis.call('HMGET', key('account'), 'credits', 'shortage', 'uncertain')
  return account[1], account[2], tonumber(account[3] or 0)
end

-- Return the credits above the minimum balance that are reserved for no job; nil before upstream's first report. What is
-- reserved is read again only after a transition that may change it: a claim for submission does not.
local total_reserved
local function available_credits(floor)
  local credits = account_fields()
  if not credits then return nil end
  if not total_reserved then
    flush_counters()
    total_reserved = tonumber(redis.call('HGET', key('counters'), 'reserved') or 0)
  end
  return tonumber(credits) - total_reserved - floor
end

-- Return why an admitted job may not be submitted, although it has a slot and its credits are reserved; nil if it
-- may. This is checked before each POST, because limits or the balance may have been lowered since its admission. A
-- job refused here is not admitted by the same limits.
local function submit_limit_reason(job, floor, now)
  local hold = limit_holds(job, 0, 0, now)[1]
  if hold then return hold.text end
  local credits = available_credits(floor)
  if credits and credits < 0 then return 'the credits of the account are reserved' end
end

-- Record whether the next job, at this cost, cannot be paid with the available credits; cost is nil if no job was passed
-- over for lack of credits, which is certain only if slots are left (`free`). A shortage that the next report may end is
-- none yet. Returns 'short' or 'enough' if that has changed, else ''.
local function record_shortage(now, cost, credits, free)
  local _, was_short, uncertain = account_fields()
  if cost and not was_short and credits + uncertain >= cost then return '' end
  if cost then
    local shortage = was_short and cjson.decode(was_short) or { since = now }
    shortage.cost = cost
    redis.call('HSET', key('account'), 'shortage', cjson.encode(shortage))
    return was_short and '' or 'short'
  end
  if was_short and free > 0 then
    redis.call('HDEL', key('account'), 'shortage')
    return 'enough'
  end
  return ''
end
