-- purge_jobs: delete jobs that were settled before the retention period, with everything that only they need. The
-- voices that they created, and the credits that they spent, are kept.
-- KEYS  root
-- ARGV  now, retention (seconds), the state, number of oldest jobs to skip, maximum number to examine, the namespace
-- RETURNS  number of examined jobs, number of deleted jobs
local state, from, max = ARGV[3], ARGV[4], ARGV[5]
local index = key(index_of('state:' .. state, ARGV[6]))
local before = string.format('(%.6f', tonumber(ARGV[1]) - tonumber(ARGV[2]))

-- Return whether work on the job is pending: a late result, callbacks for it or its batch, its songs are not archived
-- yet; or an undelivered callback that may be sent again.
local function is_needed(id, job)
  local callbacks = redis.call('EXISTS', key('callbacks:order:job:' .. id),
    key('callbacks:order:batch:' .. (job.batch or '')))
  return callbacks > 0 or job.archive == 'pending' or redis.call('ZSCORE', key('late_results'), id)
    or (job.callback and redis.call('ZSCORE', key('callbacks:undelivered'), job.callback))
end

local function purge(id, job)
  local credits = tonumber(job.credits or 0)
  redis.call('DEL', key('job:' .. id), key('timeline:' .. id))
  redis.call('ZREM', index, id)
  redis.call('ZREM', key('archive:failed'), id)
  add_to_state_count(state, job.stage, -1)
  count_failure(job.failure, job.batch, -1)
  add_to_counter('counters', 'purged.' .. state, 1)
  add_to_counter('counters', 'purged.credits', credits)
  if job.shared_voice then leave_voice(job.shared_voice) end
  add_to_owners(job.batch, 'purged.credits', credits)
  -- The cost of its lost orders is no longer reserved.
  add_to_owners(job.batch, 'reserved', -unsettled_credits(job))
  if is_batch(job.batch) then remove_from_batch(job.batch, id, state) end
  redis.call('XADD', key('purged'), 'MAXLEN', '~', EVENTS_KEPT, '*', 'id', id, 'batch', job.batch or '')
end

local purged, ids = 0, redis.call('ZRANGEBYSCORE', index, '-inf', before, 'LIMIT', from, max)
for _, id in ipairs(ids) do
  local job = read_fields('job:' .. id, { 'archive', 'callback', unpack(RECORD_FIELDS) })
  -- A wrong index is repaired by the audit.
  if job.state == state and not is_needed(id, job) then
    purge(id, job)
    purged = purged + 1
  end
end
return { #ids, purged }
