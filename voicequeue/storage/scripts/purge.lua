-- purge: let go of jobs that have been in a final state for longer than they are kept, with all that only they needed.
-- The voices that they made, and what they spent, are kept.
-- KEYS  root
-- ARGV  now, how long jobs are kept (seconds), the state, how many of the oldest to pass over, most to look at
-- RETURNS  how many were looked at, and how many of them are gone
local state, from, most = ARGV[3], ARGV[4], ARGV[5]
local before = string.format('(%.6f', tonumber(ARGV[1]) - tonumber(ARGV[2]))

-- Something is still to be done for it: its paid order may deliver, somebody is to be told of it or of its batch, or may
-- have that sent again, its songs are to be archived.
local function is_needed(id, job)
  local told = redis.call('EXISTS', key('callbacks:of:job:' .. id), key('callbacks:of:batch:' .. (job.batch or '')))
  return told > 0 or job.archive == 'pending' or redis.call('ZSCORE', key('late'), id)
    or (job.callback and redis.call('ZSCORE', key('callbacks:undelivered'), job.callback))
end

local function purge(id, job)
  local credits = tonumber(job.credits or 0)
  redis.call('DEL', key('job:' .. id), key('timeline:' .. id))
  redis.call('ZREM', key('state:' .. state), id)
  redis.call('ZREM', key('archive:failed'), id)
  stand(state, job.stage, -1)
  count_failure(job.failure, -1)
  add_up('counters', 'purged.' .. state, 1)
  add_up('counters', 'purged.credits', credits)
  if job.shares then leave_voice(job.shares) end
  if job.batch then leave_batch(job.batch, id, state, credits, unsettled_of(job)) end
  redis.call('XADD', key('purged'), 'MAXLEN', '~', EVENTS_KEPT, '*', 'id', id, 'batch', job.batch or '')
end

local gone, ids = 0, redis.call('ZRANGEBYSCORE', key('state:' .. state), '-inf', before, 'LIMIT', from, most)
for _, id in ipairs(ids) do
  local job = fields_of('job:' .. id, { 'archive', 'callback', unpack(KNOWN) })
  -- An index that is wrong is for the audit to mend.
  if job.state == state and not is_needed(id, job) then
    purge(id, job)
    gone = gone + 1
  end
end
return { #ids, gone }
