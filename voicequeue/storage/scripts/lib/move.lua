-- How one move is written, with everything that follows from it.

local EVENTS_KEPT = 20000

local function announce(id, batch, state, stage, reason, took)
  redis.call('XADD', key('events'), 'MAXLEN', '~', EVENTS_KEPT, '*',
    'id', id, 'batch', batch or '', 'state', state, 'stage', stage, 'reason', reason or '', 'took', took or '')
end

-- Of each third ARGV from `a` on, which are ids: gives what tells the spec that is there. Mostly there is none of any, which
-- one look at all of them tells.
local function specs_known(a)
  local keys = {}
  for i = a, #ARGV, 3 do keys[#keys + 1] = key('job:' .. ARGV[i]) end
  local some = #keys > 0 and redis.call('EXISTS', unpack(keys)) > 0
  return function(id) return some and redis.call('HGET', key('job:' .. id), 'spec') end
end

-- A job as it is written first; what is '' stays out.
local function new_record(id, spec, created, rank, batch, stage, next_stage, shares, sha256, origin)
  local fields = { 'spec', spec, 'state', 'queued', 'stage', stage, 'v', 1, 'rank', rank, 'created', created,
    'origin', origin }
  if batch ~= '' then fields[15] = 'batch'; fields[16] = batch end
  if next_stage ~= '' then fields[#fields + 1] = 'next'; fields[#fields + 1] = next_stage end
  if shares ~= '' then fields[#fields + 1] = 'shares'; fields[#fields + 1] = shares end
  if sha256 ~= '' then fields[#fields + 1] = 'sha256'; fields[#fields + 1] = sha256 end
  redis.call('HSET', key('job:' .. id), unpack(fields))
end

-- How many jobs stand where, but for the backlog, whose lines tell it.
local function stand(state, stage, change)
  if state ~= 'queued' then add_up('stands', state .. ':' .. stage, change) end
end

-- Where a job's state is written anew, the indexes and counters that follow from it are too.
local function reindex(id, batch, from, to, now)
  if from ~= 'queued' then redis.call('ZREM', key('state:' .. from), id) end
  if to ~= 'queued' then redis.call('ZADD', key('state:' .. to), now, id) end
  if batch and from ~= to then
    add_up('batch:' .. batch, from, -1)
    add_up('batch:' .. batch, to, 1)
  end
end

-- Credits that are promised to jobs.
local function commit(batch, change)
  add_up('counters', 'committed', change)
  if batch then add_up('batch:' .. batch, 'committed', change) end
end

-- Slot or place in the line: `due` where somebody is to look after it, the backlog where it is queued.
local function place(id, from, job, m)
  local before, after = due_key(from), m.due and due_key(m.to)
  if before and before ~= after then redis.call('ZREM', before, id) end
  if after then redis.call('ZADD', after, m.due, id) end
  if from == 'queued' then leave_line(job.rank, job.batch, id) end
  if from == 'waiting' and job.shares then redis.call('ZREM', key('waiting:' .. job.shares), id) end
  local since = job.lined or job.created
  if m.to == 'waiting' then redis.call('ZADD', key('waiting:' .. job.shares), since, id) end
  if m.to == 'queued' then join_line(job.rank, job.batch, m.stage, tonumber(since), id) end
  -- A free slot is filled by the next beat, many at once; but who comes with high priority waits for no beat.
  if before == key('flight') and after ~= before and is_urgent() then wake() end
  if FINAL[m.to] then redis.call('ZREM', key('expiry'), id) end
end

local function count_failure(failure, by)
  if failure then add_up('counters', 'failed.' .. cjson.decode(failure).code, by) end
end

-- What a move needs to know of a job.
local KNOWN = { 'state', 'stage', 'v', 'batch', 'rank', 'created', 'updated', 'attempt', 'next', 'lined', 'shares',
  'failure', 'credits', 'orders', 'lost', 'refused', 'cancelling' }
local function record(id) return fields_of('job:' .. id, KNOWN) end

-- The states of a job whose order may still be sent.
local TO_BE_SENT = { queued = true, admitted = true, charging = true }

-- move: one step in a job's life. The caller has compared the record with what the step was decided on.
-- m = {to, stage, due, reason, task_id, attempt, set = {field: value}, unset = [field]}; `job` is its record, if the caller has
-- read it, and says afterwards what stands there then of the fields that were set. Gives the job's batch.
local function move(id, m, now, job)
  job = job or record(id)
  local from, stage, since = job.state, job.stage, job.updated or job.created or now
  local promised = committed(from, stage, job.next, job.cancelling)
  local written = { 'state', m.to, 'stage', m.stage, 'updated', now, 'v', job.v + 1 }
  for field, value in pairs(m.set or {}) do
    job[field] = value
    written[#written + 1] = field
    written[#written + 1] = value
  end
  redis.call('HSET', key('job:' .. id), unpack(written))
  for _, field in ipairs(m.unset or {}) do job[field] = nil end
  if m.unset and m.unset[1] then redis.call('HDEL', key('job:' .. id), unpack(m.unset)) end
  if job.refused and not (TO_BE_SENT[m.to] and m.stage == stage) then forgive(id) end
  reindex(id, job.batch, from, m.to, now)
  if from ~= m.to or stage ~= m.stage then
    stand(from, stage, -1)
    stand(m.to, m.stage, 1)
  end
  commit(job.batch, committed(m.to, m.stage, job.next, job.cancelling) - promised)
  place(id, from, job, m)
  redis.call('RPUSH', key('timeline:' .. id), cjson.encode({
    at = now, state = m.to, stage = m.stage, reason = m.reason, task_id = m.task_id,
    attempt = m.attempt or tonumber(job.attempt or 0) }))
  announce(id, job.batch, m.to, m.stage, m.reason, string.format('%.3f', math.max(0, now - since)))
  if from ~= m.to then tell(id, job.batch, from, m.to, job.v + 1, now) end
  return job.batch
end

-- mend: put an id into an index where its record says it belongs (1), or take it out (0). Gives 1 where it was wrong.
local function mend(index, id, belongs, now)
  local rank, batch = index:match('^line:(%d):(.*)$')
  local was = redis.call('ZSCORE', key(index), id) and 1 or 0
  if was == belongs then return 0 end
  local stands = index:match('^archive:(%a+)$') -- it changes without a move
  if stands and (redis.call('HGET', key('job:' .. id), 'archive') == stands) ~= (belongs == 1) then return 0 end
  if belongs == 0 then
    if rank then leave_line(rank, batch, id) else redis.call('ZREM', key(index), id) end
    return 1
  end
  local job = redis.call('HMGET', key('job:' .. id), 'created', 'updated', 'stage', 'lined')
  local created = job[1] or now
  if rank then
    join_line(rank, batch, job[3], tonumber(job[4] or created), id)
  else
    local by_kind = { state = job[2] or created, batch = created, waiting = created, refused = 0 }
    -- In any other it stands by when somebody is to look after it.
    redis.call('ZADD', key(index), by_kind[index:match('^[^:]+')] or now, id)
  end
  return 1
end
