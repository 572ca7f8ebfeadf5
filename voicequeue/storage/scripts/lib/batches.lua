-- Batches end with their last job.

-- Remove a batch without jobs. If it has settings, its hash stays, for jobs that are enqueued later.
local function end_batch(batch)
  flush_counters()
  redis.call('ZREM', key('batches'), batch)
  local set = redis.call('HMGET', key('batch:' .. batch), 'max_credits', 'max_in_flight', 'callback_url', 'paused')
  if not (set[1] or set[2] or set[3] or tonumber(set[4] or 0) ~= 0) then redis.call('DEL', key('batch:' .. batch)) end
end

-- Remove a purged job from its batch: the state that it was in, the credits that it spent, and the cost of its lost
-- orders, which is no longer reserved.
local function remove_from_batch(batch, id, state, credits, unsettled)
  redis.call('ZREM', key('batch:' .. batch .. ':jobs'), id)
  add_to_counter('batch:' .. batch, state, -1)
  add_to_counter('batch:' .. batch, 'purged.credits', credits)
  add_to_counter('batch:' .. batch, 'reserved', -unsettled)
  if redis.call('EXISTS', key('batch:' .. batch .. ':jobs')) == 0 then end_batch(batch) end
end
