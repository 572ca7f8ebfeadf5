-- purge: let go of jobs that have been over for longer than they are kept, with all that only they needed, and of
-- callbacks that were given up so long ago. The voices that they made, and what they spent, are kept.
-- KEYS  root
-- ARGV  what was over before then goes (Unix seconds), most of each state to look at
-- RETURNS  how many are gone: there may be more
local before, most = ARGV[1], ARGV[2]

local function over_in(index)
  return redis.call('ZRANGEBYSCORE', key(index), '-inf', '(' .. before, 'LIMIT', 0, most)
end

-- Something is still to be done for it: its paid order may deliver, somebody is to be told of it or of its batch, its
-- songs are to be archived. Each of these ends by itself.
local function is_needed(id, job)
  local told = redis.call('EXISTS', key('callbacks:of:job:' .. id), key('callbacks:of:batch:' .. (job.batch or '')))
  return told > 0 or job.archive == 'pending' or redis.call('ZSCORE', key('late'), id)
end

local function purge(id, job)
  local credits = tonumber(job.credits or 0)
  redis.call('DEL', key('job:' .. id), key('timeline:' .. id))
  redis.call('ZREM', key('state:' .. job.state), id)
  redis.call('ZREM', key('archive:failed'), id)
  stand(job.state, job.stage, -1)
  count_failure(job.failure, -1)
  add_up('counters', 'purged.jobs', 1)
  add_up('counters', 'purged.credits', credits)
  if job.batch then leave_batch(job.batch, id, job.state, credits) end
  redis.call('XADD', key('purged'), 'MAXLEN', '~', EVENTS_KEPT, '*', 'id', id, 'batch', job.batch or '')
end

local gone = 0
for state in pairs(FINAL) do
  for _, id in ipairs(over_in('state:' .. state)) do
    local job = fields_of('job:' .. id, { 'archive', unpack(KNOWN) })
    -- An index that is wrong is for the audit to mend.
    if job.state == state and not is_needed(id, job) then
      purge(id, job)
      gone = gone + 1
    end
  end
end
for _, id in ipairs(over_in('callbacks:undelivered')) do
  redis.call('ZREM', key('callbacks:undelivered'), id)
  redis.call('DEL', key('callback:' .. id))
  gone = gone + 1
end
return gone
