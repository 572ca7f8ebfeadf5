-- What holds charges back: the gate, the limit of jobs in flight, the submit rate, the credits left.

-- Reasons that end with a trial: when their time is over, one job at a time is let through, until upstream
-- has taken one.
local TRIED = { out_of_credits = true, unauthorized = true, upstream_down = true }

-- 'open', 'trial' or 'closed', for one stage or (nil) for all; of a trial how many have failed before.
local function gate_of(now, stage)
  local state, failed, gate = 'open', 0, redis.call('HGETALL', key('gate'))
  for g = 1, #gate, 2 do
    local reason, hold = gate[g], cjson.decode(gate[g + 1])
    local over = hold.till and tonumber(hold.till) <= tonumber(now)
    if over and TRIED[reason] then
      state, failed = 'trial', math.max(failed, hold.times)
    elseif over then
      redis.call('HDEL', key('gate'), reason)
    elseif reason:sub(1, 7) ~= 'paused.' or reason == 'paused.' .. (stage or '') then
      return 'closed', 0
    end
  end
  return state, failed
end

local function paused_stages()
  return {
    voice = redis.call('HEXISTS', key('gate'), 'paused.voice') == 1,
    music = redis.call('HEXISTS', key('gate'), 'paused.music') == 1,
  }
end

-- What holds for that reason, be it on trial; nothing where it is over.
local function hold_of(reason, now)
  local entry = redis.call('HGET', key('gate'), reason)
  local hold = entry and cjson.decode(entry) or nil
  local over = hold and hold.till and tonumber(hold.till) <= tonumber(now)
  return (not over or TRIED[reason]) and hold or nil
end

-- close_gate: for this reason as well, for the longer of the two if it holds already. Gives what held before.
local function close_gate(reason, now, detail, till)
  local before = hold_of(reason, now)
  if before and till and (not before.till or tonumber(before.till) > tonumber(till)) then till = before.till end
  if before and detail == '' then detail = before.detail end
  redis.call('HSET', key('gate'), reason, cjson.encode({
    since = before and before.since or now, detail = detail, till = till, times = (before and before.times or 0) + 1 }))
  return before
end

-- on_trial: one order at a time, until upstream takes one; where the gate is closed for this reason, it stays so.
-- Gives whether that is new.
local function on_trial(reason, now, detail)
  if hold_of(reason, now) then return false end
  redis.call('HSET', key('gate'), reason, cjson.encode({ since = now, detail = detail, till = now, times = 0 }))
  return true
end

-- hold_back: nothing is charged for `pause` seconds, for twice as long after each trial that failed, at most for `most`
-- (nil: until an operator resumes). Orders that left before it closed make it no longer. Gives whether that is new.
local function hold_back(reason, now, detail, pause, most)
  local before = hold_of(reason, now)
  if before and not (before.till and tonumber(before.till) <= tonumber(now)) then return false end
  local wait = most and math.min(most, pause * 2 ^ (before and before.times or 0))
  close_gate(reason, now, detail, wait and string.format('%.6f', now + wait))
  return not before or before.times == 0 or not most
end

-- The trial is over, if no order was refused that speaks for it.
local function end_trial(reason)
  local entry = redis.call('HGET', key('gate'), reason)
  if not entry or cjson.decode(entry).times > 0 or redis.call('EXISTS', key('refused:' .. reason)) == 1 then return end
  redis.call('HDEL', key('gate'), reason)
  wake()
end

-- Upstream has answered a question: what it did not answer before was not meant for all.
local REASONS = { 'out_of_credits', 'unauthorized', 'upstream_down', 'cooldown' }
local function answered()
  local keys = {}
  for i, reason in ipairs(REASONS) do keys[i] = key('unanswered:' .. reason) end
  if redis.call('DEL', unpack(keys)) == 0 then return end
  redis.call('HDEL', key('flow'), 'failures')
  end_trial('unauthorized')
  end_trial('out_of_credits')
end

-- POSTs a minute, at the least; voicequeue/domain/gate.py says the same.
local RATE_MIN = 0.01

-- The settings of the caller, four ARGV from `a` on: most jobs in flight, how many at first, POSTs a minute
-- ('' = any), credits that are not touched. What somebody set while it runs goes before them.
local function limits_from(a)
  local set = redis.call('HMGET', key('limits'), 'in_flight', 'submit_rate', 'credit_floor')
  local rate = tonumber(set[2] or ARGV[a + 2]) or 0
  return { most = tonumber(set[1] or ARGV[a]), first = tonumber(ARGV[a + 1]),
    rate = rate > 0 and math.max(rate, RATE_MIN) or nil, floor = tonumber(set[3] or ARGV[a + 3]) }
end

-- How many jobs upstream lets us have at once is found out: up by one with each order that it takes while
-- all slots are used, until it says "slow down"; then halved, and quickly back up to where it was well.
-- Beyond that one more is tried after `patience` orders: at first as many as fill all slots four times over. Each
-- trial that goes well halves it, each that fails makes four times as many. After so many calm seconds filling all
-- slots once is enough: what held upstream back then may be over.
local PATIENCE, PATIENCE_MAX, CALM_S = 4, 400, 600

local function limit_now(limits)
  return math.min(limits.most, tonumber(redis.call('HGET', key('flow'), 'limit') or limits.first))
end

local function grow(limits, now, orders)
  local flow = redis.call('HMGET', key('flow'), 'limit', 'ceiling', 'streak', 'patience', 'cut')
  local limit, ceiling = tonumber(flow[1] or limits.first), tonumber(flow[2] or limits.most)
  local streak, patience = tonumber(flow[3] or 0), tonumber(flow[4] or PATIENCE)
  if flow[5] and now - tonumber(flow[5]) >= CALM_S then patience = math.min(patience, limit) end
  local used, held = redis.call('ZCARD', key('flight')), redis.call('ZCARD', key('state:pending'))
  local known = { limit = limit, ceiling = ceiling, streak = streak }
  -- Others were still on their way when upstream said "slow down", and it took them.
  ceiling = math.max(ceiling, held)
  for _ = 1, orders do
    if limit >= limits.most or used < limit / 2 or (limit >= ceiling and used < limit) then break end
    if limit < ceiling then
      limit = limit + 1
    elseif streak + 1 < patience then
      streak = streak + 1
    else
      limit, ceiling, streak, patience = limit + 1, limit + 1, 0, math.max(1, math.floor(patience / 2))
      redis.call('HSET', key('flow'), 'patience', patience)
    end
  end
  for field, value in pairs({ limit = limit, ceiling = ceiling, streak = streak }) do
    if value ~= known[field] then redis.call('HSET', key('flow'), field, value) end
  end
end

-- One cut for all the answers of one moment: those of orders that left before the cut say nothing new.
local function cut(now, well, pause)
  local flow = redis.call('HMGET', key('flow'), 'cut', 'patience', 'limit', 'ceiling')
  if flow[1] and tonumber(now) < tonumber(flow[1]) + pause then return end
  local ceiling, limit = math.max(1, well), tonumber(flow[3] or 0)
  -- Below what was well it says that less is well by now, and at one that even one is too much: no trial failed.
  local tried = limit > 1 and limit >= tonumber(flow[4] or limit + 1)
  redis.call('HSET', key('flow'), 'limit', math.max(1, math.floor(ceiling / 2)), 'ceiling', ceiling, 'streak', 0,
    'cut', now, 'patience', math.min(PATIENCE_MAX, PATIENCE * math.max(ceiling, tried and flow[2] or 1)))
end

-- Seconds until the next POST may leave, at `rate` a minute with up to a second's worth (at least one) at once;
-- 0 takes it.
local function rate_wait(now, rate)
  if not rate then return 0 end
  local each = 60 / rate
  -- What was written at another rate, or by a clock that was ahead, holds nothing up for longer than this rate would.
  local tat = math.min(tonumber(redis.call('HGET', key('flow'), 'tat') or 0), now + math.max(1, each))
  local free_at = math.max(tat, now)
  local wait = free_at - now - math.max(0, 1 - each)
  if wait > 1e-6 then return wait end
  redis.call('HSET', key('flow'), 'tat', free_at + each)
  return 0
end

local function credits_spent()
  local spent = redis.call('HMGET', key('counters'), 'voice.credits', 'music.credits', 'corrected.credits')
  return tonumber(spent[1] or 0) + tonumber(spent[2] or 0) + tonumber(spent[3] or 0)
end

-- What the orders of jobs in this state cost, each at the stage where it is.
local function credits_of(state)
  local counts = redis.call('HMGET', key('stands'), state .. ':voice', state .. ':music')
  return tonumber(counts[1] or 0) * PRICE.voice + tonumber(counts[2] or 0) * PRICE.music
end

-- Credits above the floor that are promised to no job; nil where upstream has not said yet. What is left is read once:
-- no script that asks for it spends any.
local account_credits
local function credits_free(floor)
  if account_credits == nil then account_credits = redis.call('HGET', key('account'), 'credits') end
  if not account_credits then return nil end
  write_sums()
  return tonumber(account_credits) - tonumber(redis.call('HGET', key('counters'), 'committed') or 0) - floor
end

-- What somebody set for a batch; read once by each script.
local set_for = {}
local function settings_of(batch)
  set_for[batch] = set_for[batch] or redis.call('HMGET', key('batch:' .. batch), 'paused', 'max_in_flight', 'max_credits')
  return set_for[batch]
end

-- Why the limits of a batch do not allow so many slots and credits more; nil where they do.
local function batch_refuses(batch, slots, cost)
  if batch == '' then return nil end
  local set = settings_of(batch)
  if tonumber(set[1] or 0) ~= 0 then return 'the batch is paused' end
  if not (set[2] or set[3]) then return nil end
  write_sums()
  local known = redis.call('HMGET', key('batch:' .. batch), 'admitted', 'charging', 'pending', 'credits', 'committed')
  local function n(i) return tonumber(known[i] or 0) end
  if set[2] and n(1) + n(2) + n(3) + slots > tonumber(set[2]) then return 'the slots of the batch are taken' end
  if set[3] and n(4) + n(5) + cost > tonumber(set[3]) then return 'the credits of the batch are promised' end
end

-- Whether a batch lets one more of its jobs begin, which costs so much to its end.
local function batch_allows(batch, cost) return not batch_refuses(batch, 1, cost) end

-- Why an admitted job may not be charged, although it has a slot and its cost is promised; nil where it may. It is
-- asked before each POST: limits may have been lowered since, or credits may have gone elsewhere. Whatever is refused
-- here is not admitted by the same limits.
local function charge_refused(batch, floor)
  local refused = batch_refuses(batch or '', 0, 0)
  if refused then return refused end
  local free = credits_free(floor)
  if free and free < 0 then return 'the credits of the account are promised' end
end

-- Whether the next job cannot be paid, and since when. `free` slots left over say that nobody was refused.
-- Gives 'short' or 'enough' where that is news.
local function note_short(now, cost, free)
  local known = redis.call('HEXISTS', key('account'), 'short') == 1
  if cost then
    local short = known and cjson.decode(redis.call('HGET', key('account'), 'short')) or { since = now }
    short.cost = cost
    redis.call('HSET', key('account'), 'short', cjson.encode(short))
    return known and '' or 'short'
  end
  if known and free > 0 then
    redis.call('HDEL', key('account'), 'short')
    return 'enough'
  end
  return ''
end
