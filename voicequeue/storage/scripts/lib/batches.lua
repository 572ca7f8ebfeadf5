-- Batches end with their last job.

local BATCH_SETTINGS = { 'max_credits', 'max_in_flight', 'stop_after', 'stop_min', 'callback_url' }

-- Remove a batch without jobs. If it has settings, its hash stays, for jobs that are enqueued later; a stop
-- ends.
local function end_batch(batch)
  flush_counters()
  redis.call('ZREM', key('batches'), batch)
  if not end_stop(batch) then start_sample(batch) end
  local settings = redis.call('HMGET', key('batch:' .. batch), unpack(BATCH_SETTINGS))
  local is_paused = tonumber(redis.call('HGET', key('batch:' .. batch), 'paused') or 0) ~= 0
  for i = 1, #BATCH_SETTINGS do if settings[i] then return end end
  if not is_paused then redis.call('DEL', key('batch:' .. batch)) end
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
