-- Batches end with their last job.

-- It has no jobs: what somebody set for it stays, with what was spent, for jobs that may still come.
local function end_batch(batch)
  write_sums()
  redis.call('ZREM', key('batches'), batch)
  local set = redis.call('HMGET', key('batch:' .. batch), 'max_credits', 'max_in_flight', 'callback_url', 'paused')
  if not (set[1] or set[2] or set[3] or tonumber(set[4] or 0) ~= 0) then redis.call('DEL', key('batch:' .. batch)) end
end

-- A job of it, which stood in that state and had spent so much, is purged; what its lost orders may have cost is promised
-- no longer.
local function leave_batch(batch, id, state, credits, unsettled)
  redis.call('ZREM', key('batch:' .. batch .. ':jobs'), id)
  add_up('batch:' .. batch, state, -1)
  add_up('batch:' .. batch, 'purged.credits', credits)
  add_up('batch:' .. batch, 'committed', -unsettled)
  if redis.call('EXISTS', key('batch:' .. batch .. ':jobs')) == 0 then end_batch(batch) end
end
