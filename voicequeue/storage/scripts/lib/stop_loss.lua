-- Stop-loss: a batch with the limit `stop_after` stops itself when too many of its jobs fail. The outcomes of its orders
-- are counted in a sample, which starts again when a stopped batch is resumed.

-- Settled jobs without which the limit does not apply; the same as in voicequeue/domain/stop_loss.py.
local STOP_MIN = 20

-- Failures that say nothing about the orders of a batch: the caller's own deadline, the decision of an operator.
local NOT_SAMPLED = { expired = true, abandoned = true }

local function sampled_code(failure)
  local code = failure and cjson.decode(failure).code
  return code and not NOT_SAMPLED[code] and code or nil
end

-- The batches that this script may have brought to their limit.
local batches_to_check = {}

-- Count (`change` = 1) or withdraw (-1) an outcome; without a failure code it is a success.
local function add_outcome(batch, code, is_free, change)
  add_to_counter('batch:' .. batch, 'sample.settled', change)
  if not code then return end
  add_to_counter('batch:' .. batch, 'sample.failed', change)
  add_to_counter('batch:' .. batch, 'sample.failed.' .. code, change)
  if is_free then add_to_counter('batch:' .. batch, 'sample.free', change) end
end

-- Return whether nothing was paid for a job so far: no order of it was charged, and none of unknown outcome may be.
local function has_cost_nothing(job, set)
  return tonumber(set.credits or job.credits or 0) == 0 and not (set.lost_orders or job.lost_orders)
end

-- Count the outcome that a transition brings. A failed job is marked with the round of the sample that counts it, and
-- with `:free` if it cost nothing: if its order has another outcome later, that one replaces the first. A retry with a
-- new order brings an outcome more.
local sample_rounds = {}
local function count_outcome(job, t)
  sample_rounds[job.batch] = sample_rounds[job.batch] or redis.call('HGET', key('batch:' .. job.batch), 'sample.round') or '0'
  local round = sample_rounds[job.batch]
  local code = t.to == 'failed' and sampled_code(t.set.failure or job.failure) or nil
  local has_new_order = t.to == 'queued' or t.to == 'waiting'
  local was_free = job.sampled == round .. ':free'
  local is_counted = was_free or job.sampled == round
  local is_sampled = (code or t.to == 'succeeded') and (is_counted or not FINAL[job.state])
  local is_free = code and has_cost_nothing(job, t.set)
  if is_counted and not has_new_order then add_outcome(job.batch, sampled_code(job.failure), was_free, -1) end
  if is_sampled then add_outcome(job.batch, code, is_free, 1) end
  if is_sampled and code then
    t.set.sampled = round .. (is_free and ':free' or '')
  elseif job.sampled then
    table.insert(t.unset, 'sampled')
  end
end

-- Count the outcome, if the transition brings one, and remember the batch if it may have reached its limit.
local function sample_outcome(job, t)
  if not is_batch(job.batch) then return end
  -- Fewer orders in flight, or something left to stop.
  local is_check_needed = job.state == 'pending' or (RESTING[job.state] and not RESTING[t.to])
  if FINAL[t.to] or is_check_needed then batches_to_check[job.batch] = true end
  if FINAL[t.to] or job.sampled then count_outcome(job, t) end
end

-- Return how many jobs of the sample failed, by code.
local function sampled_failures(batch)
  local failures, fields = {}, redis.call('HGETALL', key('batch:' .. batch))
  for f = 1, #fields, 2 do
    local code = fields[f]:match('^sample%.failed%.(.+)$')
    if code and tonumber(fields[f + 1]) > 0 then failures[code] = tonumber(fields[f + 1]) end
  end
  return failures
end

-- Return the sample of a batch, its orders in flight, and its jobs that are not settled.
local SAMPLE = { 'sample.settled', 'sample.failed', 'sample.free', 'pending' }
local function read_sample(batch)
  flush_counters()
  local counts, unsettled = redis.call('HMGET', key('batch:' .. batch), unpack(SAMPLE)), 0
  for _, count in ipairs(redis.call('HMGET', key('batch:' .. batch), unpack(UNSETTLED))) do
    unsettled = unsettled + tonumber(count or 0)
  end
  local function n(i) return tonumber(counts[i] or 0) end
  return { settled = n(1), failed = n(2), free = n(3), in_flight = n(4), unsettled = unsettled }
end

-- Return whether so many jobs failed. Those that cost money are compared with all that did: what is spent in vain
-- does not depend on how slow the others are. Failures that cost nothing come at once, before the success of orders
-- that were sent earlier: they are compared with orders in flight, too.
local function has_reached_limit(sample, limit, least)
  local paid, paid_failed = sample.settled - sample.free, sample.failed - sample.free
  return (paid >= least and paid_failed / paid >= limit)
    or (sample.settled >= least and sample.failed / (sample.settled + sample.in_flight) >= limit)
end

-- Stop a batch that has reached its limit, unless all its jobs are settled: nothing more is submitted until it is
-- resumed.
local function stop_at_limit(batch, now)
  local stop_after, stop_min, stopped = unpack(redis.call('HMGET', key('batch:' .. batch), 'stop_after', 'stop_min', 'stopped'))
  if stopped then return end
  local sample = read_sample(batch)
  if sample.unsettled == 0 or not has_reached_limit(sample, tonumber(stop_after), tonumber(stop_min or STOP_MIN)) then return end
  redis.call('HSET', key('batch:' .. batch), 'stopped', cjson.encode({ at = now, settled = sample.settled,
    in_flight = sample.in_flight, failed_by_code = sampled_failures(batch), stop_after = stop_after }))
  redis.call('ZADD', key('batches:stopped'), now, batch)
  redis.call('SADD', key('batches:stopped:unlogged'), batch)
  batch_settings[batch] = nil
  enqueue_stopped_callback(batch, now)
end

local function stop_if_failing(batch, now)
  if redis.call('HEXISTS', key('batch:' .. batch), 'stop_after') == 1 then stop_at_limit(batch, now) end
end

local function start_sample(batch)
  for _, field in ipairs(redis.call('HKEYS', key('batch:' .. batch))) do
    if field:match('^sample%.[sf]') then redis.call('HDEL', key('batch:' .. batch), field) end
  end
  redis.call('HINCRBY', key('batch:' .. batch), 'sample.round', 1)
  sample_rounds[batch] = nil
end

-- End the stop of a batch, with a new sample. Returns whether the batch was stopped.
local function end_stop(batch)
  if redis.call('HDEL', key('batch:' .. batch), 'stopped') == 0 then return false end
  redis.call('ZREM', key('batches:stopped'), batch)
  redis.call('SREM', key('batches:stopped:unlogged'), batch)
  start_sample(batch)
  return true
end
