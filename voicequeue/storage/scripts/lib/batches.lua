-- Batches begin with their first job and end with the last.

local BATCH_SETTINGS = { 'max_credits', 'max_in_flight', 'stop_after', 'stop_min', 'callback_url' }

-- Remove a batch without jobs. If it has settings, its hash stays, for jobs that are enqueued later; a stop
-- ends.
local function end_batch(batch)
  flush_counters()
  redis.call('ZREM', key(index_of('batches', namespace_of(batch))), batch)
  if not end_stop(batch) then start_sample(batch) end
  local settings = redis.call('HMGET', key('batch:' .. batch), unpack(BATCH_SETTINGS))
  local is_paused = tonumber(redis.call('HGET', key('batch:' .. batch), 'paused') or 0) ~= 0
  for i = 1, #BATCH_SETTINGS do if settings[i] then return end end
  if not is_paused then redis.call('DEL', key('batch:' .. batch)) end
end

-- Add queued jobs to their batch and namespace; `members` are their scores and ids.
local function add_to_batch(batch, members, now)
  local namespace = namespace_of(batch)
  if namespace ~= '' then redis.call('ZADD', key('namespaces'), 'NX', now, namespace) end
  if not is_batch(batch) then return end
  redis.call('ZADD', key('batch:' .. batch .. ':jobs'), unpack(members))
  local added = #members / 2
  -- A batch with other queued jobs is listed.
  if redis.call('HINCRBY', key('batch:' .. batch), 'queued', added) > added then return end
  redis.call('ZADD', key(index_of('batches', namespace)), 'NX', now, batch)
end

-- Add new jobs: scores and ids by lane and by batch, credits by kind of job.
local function add_to_backlog(by_lane, by_batch, by_kind, now)
  for _, jobs in pairs(by_kind) do
    list_owners(jobs, now)
    add_queued_credits(jobs, jobs.queued)
  end
  for _, lane in ipairs(by_lane) do
    redis.call('ZADD', key('lane:' .. lane), unpack(by_lane[lane]))
    if is_late_call(now) then drop_summaries('lane:' .. lane, by_lane[lane]) end
    give_turn(lane:sub(1, 1), lane:sub(3))
  end
  for _, batch in ipairs(by_batch) do
    add_to_batch(batch, by_batch[batch], now)
    add_event('', batch, 'queued', '', #by_batch[batch] / 2 .. ' enqueued')
  end
end

-- Remove a purged job from its batch; `state` is the state that it was in.
local function remove_from_batch(batch, id, state)
  redis.call('ZREM', key('batch:' .. batch .. ':jobs'), id)
  add_to_counter('batch:' .. batch, state, -1)
  if redis.call('EXISTS', key('batch:' .. batch .. ':jobs')) == 0 then end_batch(batch) end
end
