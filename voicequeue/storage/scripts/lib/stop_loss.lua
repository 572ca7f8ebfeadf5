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

-- The batches whose sample this script has changed.
local sampled_batches = {}

-- Count (`change` = 1) or withdraw (-1) an outcome; without a failure code it is a success.
local function add_outcome(batch, code, change)
  sampled_batches[batch] = true
  add_to_counter('batch:' .. batch, 'sample.settled', change)
  if not code then return end
  add_to_counter('batch:' .. batch, 'sample.failed', change)
  add_to_counter('batch:' .. batch, 'sample.failed.' .. code, change)
end

-- Count the outcome that a transition brings. A failed job is marked with the round of the sample that counts it: if
-- its order has another outcome later, that one replaces the first. A retry with a new order brings an outcome more.
local function sample_outcome(job, t)
  if not job.batch or not (FINAL[t.to] or job.sampled) then return end
  local round = redis.call('HGET', key('batch:' .. job.batch), 'sample.round') or '0'
  local code = t.to == 'failed' and sampled_code(t.set.failure or job.failure) or nil
  local has_new_order = t.to == 'queued' or t.to == 'waiting'
  local is_counted = job.sampled == round
  local is_sampled = (code or t.to == 'succeeded') and (is_counted or not FINAL[job.state])
  if is_counted and not has_new_order then add_outcome(job.batch, sampled_code(job.failure), -1) end
  if is_sampled then add_outcome(job.batch, code, 1) end
  if is_sampled and code then t.set.sampled = round elseif job.sampled then table.insert(t.unset, 'sampled') end
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

-- Stop a batch whose sample has reached its limit: nothing more is submitted until it is resumed.
local function stop_if_failing(batch, now)
  local limit = redis.call('HMGET', key('batch:' .. batch), 'stop_after', 'stop_min', 'stopped')
  if not limit[1] or limit[3] then return end
  flush_counters()
  local sample = redis.call('HMGET', key('batch:' .. batch), 'sample.settled', 'sample.failed')
  local settled, failed = tonumber(sample[1] or 0), tonumber(sample[2] or 0)
  if settled < tonumber(limit[2] or STOP_MIN) or failed / settled < tonumber(limit[1]) then return end
  redis.call('HSET', key('batch:' .. batch), 'stopped', cjson.encode({
    at = now, settled = settled, failed_by_code = sampled_failures(batch), stop_after = limit[1] }))
  redis.call('ZADD', key('batches:stopped'), now, batch)
  redis.call('SADD', key('batches:stopped:unlogged'), batch)
  batch_settings[batch] = nil
  enqueue_stopped_callback(batch, now)
end

local function start_sample(batch)
  for _, field in ipairs(redis.call('HKEYS', key('batch:' .. batch))) do
    if field:match('^sample%.[sf]') then redis.call('HDEL', key('batch:' .. batch), field) end
  end
  redis.call('HINCRBY', key('batch:' .. batch), 'sample.round', 1)
end

-- End the stop of a batch, with a new sample. Returns whether the batch was stopped.
local function end_stop(batch)
  if redis.call('HDEL', key('batch:' .. batch), 'stopped') == 0 then return false end
  redis.call('ZREM', key('batches:stopped'), batch)
  redis.call('SREM', key('batches:stopped:unlogged'), batch)
  start_sample(batch)
  return true
end
