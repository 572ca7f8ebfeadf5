-- Orders that upstream refuses in words which may be meant for every order, or for one job alone. What it says of two
-- jobs while it takes none is meant for all; what it says of one while it takes others is meant for that one.

-- How often a job is refused at most (times `tries`) although upstream took others only at first.
local LONG = 4

-- However long upstream asks two jobs to wait, all wait no longer than this (seconds): it may be meant for those two.
local AGREED_MAX_S = 60

-- Gives whether a job is passed over now: it rests after a refusal, or (`untried`) was refused at all.
local function passing(now, untried)
  if redis.call('EXISTS', key('refused')) == 0 then return function() return false end end
  return function(id)
    local rests = redis.call('ZSCORE', key('refused'), id)
    return rests and (untried or tonumber(rests) > now)
  end
end

-- Upstream has taken orders, so many of each stage: what it refused before was not meant for all, and trials are over.
local function proven(limits, now, taken)
  local count = 0
  redis.call('HSET', key('flow'), 'took', now)
  for stage, orders in pairs(taken) do
    redis.call('HINCRBY', key('flow'), 'takes.' .. stage, orders)
    count = count + orders
  end
  if redis.call('EXISTS', key('gate')) == 1 and gate_of(now) == 'trial' then
    redis.call('HDEL', key('gate'), 'out_of_credits', 'unauthorized', 'upstream_down')
    wake()
  end
  redis.call('HDEL', key('flow'), 'failures')
  local keys = { key('unanswered:upstream_down') }
  for _, reason in ipairs(REASONS) do keys[#keys + 1] = key('refused:' .. reason) end
  redis.call('DEL', unpack(keys))
  grow(limits, now, count)
end

-- Whether upstream took any of the orders that were answered together.
local function is_taken_any(moves)
  for _, m in ipairs(moves) do if m.credits > 0 then return true end end
  return false
end

-- The job's order is not refused any more, or not to be sent: a trial that was for it alone is over.
local function forgive(id)
  redis.call('HDEL', key('job:' .. id), 'refused')
  redis.call('ZREM', key('refused'), id)
  for _, reason in ipairs(REASONS) do
    if redis.call('SREM', key('refused:' .. reason), id) == 1 then end_trial(reason) end
  end
end

-- Orders are held back because jobs were refused, for ever longer: a job that is enqueued later is tried `pause` seconds
-- after the last refusal, however long the others wait.
local function let_newcomers_try(reason, now, pause)
  local entry = redis.call('HGET', key('gate'), reason)
  local hold = entry and cjson.decode(entry)
  if not (hold and hold.till) then return end
  hold.closed, hold.early = now, now + pause
  redis.call('HSET', key('gate'), reason, cjson.encode(hold))
end

-- The holds that keep the gate closed, if a job that is enqueued later may be tried now, and since when they do; else nil.
local function early_holds(now)
  local holds, closed, gate = {}, 0, redis.call('HGETALL', key('gate'))
  for g = 1, #gate, 2 do
    local reason, hold = gate[g], cjson.decode(gate[g + 1])
    if not (hold.till and tonumber(hold.till) <= now) then
      if not (TRIED[reason] and hold.early and hold.early <= now) then return nil end
      holds[reason], closed = hold, math.max(closed, hold.closed)
    end
  end
  -- A POST to an upstream that does not answer may be charged: for that no job is tried early.
  if holds.upstream_down and tonumber(redis.call('HGET', key('flow'), 'failures') or 0) > 0 then return nil end
  return holds, closed
end

-- Whether a job that was enqueued after the gate closed is tried now; if so, orders are on trial.
local function is_newcomer_tried(now, paused)
  local holds, closed = early_holds(now)
  if not holds then return false end
  local newest_of = heads(paused, passing(now, true), true)
  for rank = 0, 2 do
    for _, batch in ipairs(redis.call('ZRANGE', key('turns:' .. rank), 0, 99)) do
      local id = newest_of(rank, batch)
      if id and tonumber(redis.call('HGET', key('job:' .. id), 'created')) > closed then
        for reason, hold in pairs(holds) do
          hold.till = now
          redis.call('HSET', key('gate'), reason, cjson.encode(hold))
        end
        return true
      end
    end
  end
  return false
end

-- How many other jobs were refused for that reason since upstream took an order.
local function others_refused(reason, id)
  return redis.call('SCARD', key('refused:' .. reason)) - redis.call('SISMEMBER', key('refused:' .. reason), id)
end

-- How many other jobs were told to slow down since then, of the last ten minutes.
local function others_slowed(id, since, now)
  redis.call('ZREMRANGEBYSCORE', key('slowed'), '-inf', now - CALM_S)
  local at = tonumber(redis.call('ZSCORE', key('slowed'), id) or '-inf')
  return redis.call('ZCOUNT', key('slowed'), since, '+inf') - (at >= since and 1 or 0)
end

-- Nothing is charged for as long as upstream says, or for a short while if it says so of one job alone. Fewer jobs are in
-- flight from now on if it has said so of others of late. Gives whether nothing held for that reason.
local function slow_down(id, r, now, agreed)
  local wait = r.wait > 0 and r.wait or r.pause
  wait = math.min(wait, agreed and AGREED_MAX_S or r.pause)
  if others_slowed(id, now - CALM_S, now) > 0 then cut(now, redis.call('ZCARD', key('state:pending')), wait) end
  redis.call('ZADD', key('slowed'), now, id)
  return not close_gate('cooldown', now, r.detail, string.format('%.6f', now + wait))
end

-- Whether the refusal is meant for this job alone: upstream has taken others like it since the last one, and refused none.
local function is_own(id, r, stage, before, takes, now)
  if not before.takes or takes == before.takes or others_refused(r.reason, id) > 0 then return false end
  if r.reason == 'cooldown' then return others_slowed(id, tonumber(before.at) + 1e-6, now) == 0 end
  if r.reason ~= 'out_of_credits' then return true end
  return tonumber(redis.call('HGET', key('account'), 'credits') or 0) >= PRICE[stage]
end

-- judge: a job that upstream refused goes behind the others and rests for a while; one that was refused often enough
-- while upstream took others fails. `mixed`: it took others at that moment.
-- r = {reason, detail, words, failure, pause, most, rest, wait, tries}: see Refusal in voicequeue/domain/gate.py.
-- Gives 2 = orders are on trial now, and were not; 3 = nothing is charged now, and it was; else 1.
local function judge(id, m, job, now, mixed)
  local r, at = m.refused, tonumber(now)
  local before = job.refused and cjson.decode(job.refused) or { times = 0, own = 0 }
  local takes = tonumber(redis.call('HGET', key('flow'), 'takes.' .. m.stage) or 0)
  local own, others = is_own(id, r, m.stage, before, takes, at), others_refused(r.reason, id) > 0
  local known = { times = before.times + 1, own = before.own + (own and 1 or 0), takes = takes, at = now, words = r.words }
  if known.own >= r.tries or (known.own > 0 and not others and known.times >= LONG * r.tries) then
    m.to, m.reason, m.set = 'failed', cjson.decode(r.failure).code, { failure = r.failure, settled = now }
    return 1
  end
  local is_slow = r.reason == 'cooldown'
  local is_shared = is_slow and not own and others_slowed(id, at - CALM_S, at) > 0
  local rest = is_shared and r.wait or math.max(r.wait, math.min(r.rest, r.pause * 2 ^ (known.times - 1)))
  m.set.lined, m.set.refused = now, cjson.encode(known)
  redis.call('ZADD', key('refused'), string.format('%.6f', at + rest), id)
  if own or (mixed and not is_slow) then return 1 end
  redis.call('SADD', key('refused:' .. r.reason), id)
  if is_slow then return slow_down(id, r, at, others and not mixed) and 3 or 1 end
  if not others then return on_trial(r.reason, now, r.detail) and 2 or 1 end
  local is_news = hold_back(r.reason, now, r.detail, r.pause, r.most)
  let_newcomers_try(r.reason, at, r.pause)
  return is_news and 3 or 1
end
