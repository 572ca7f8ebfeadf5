-- Batches end when their last job does not belong to them any more.

-- It has no jobs: what somebody set to limit it stays, with what was spent, for jobs that may still come.
local function end_batch(batch)
  write_sums()
  redis.call('ZREM', key('batches'), batch)
  for _, voice in ipairs(redis.call('SMEMBERS', key('batch:' .. batch .. ':voices'))) do
    redis.call('DEL', voice_key(voice))
  end
  redis.call('DEL', key('batch:' .. batch .. ':voices'))
  local limits = redis.call('HMGET', key('batch:' .. batch), 'max_credits', 'max_in_flight', 'paused')
  if not (limits[1] or limits[2] or tonumber(limits[3] or 0) ~= 0) then redis.call('DEL', key('batch:' .. batch)) end
end

-- A job of it, which stood in that state and had spent so much, is purged.
local function leave_batch(batch, id, state, credits)
  redis.call('ZREM', key('batch:' .. batch .. ':jobs'), id)
  add_up('batch:' .. batch, state, -1)
  add_up('batch:' .. batch, 'purged.credits', credits)
  if redis.call('EXISTS', key('batch:' .. batch .. ':jobs')) == 0 then end_batch(batch) end
end
