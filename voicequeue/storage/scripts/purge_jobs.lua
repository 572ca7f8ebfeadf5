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

local purged, ids = 0, redis.call('ZRANGEBYSCORE', index, '-inf', before, 'LIMIT', from, max)
for _, id in ipairs(ids) do
  local job = read_fields('job:' .. id, { 'archive', 'callback', unpack(RECORD_FIELDS) })
  -- A wrong index is repaired by the audit.
  if job.state == state and not is_needed(id, job) then
    remove_job(id, job)
    purged = purged + 1
  end
end
return { #ids, purged }
