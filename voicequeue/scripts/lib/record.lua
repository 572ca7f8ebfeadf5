-- Shared by every script: the key map, the gate, and how one move is written.
--
-- KEYS[1] is the root, "{prefix}:". Every key begins with it, so all of them lie in one cluster slot:
--   job:<id>       hash    the record: spec, state, stage, v (version), rank, created, updated, batch, next;
--                          later attempt, holder, since, credits, voice.task, music.task, persona_id,
--                          voice_name, clips, failure, settled
--   timeline:<id>  list    every move as JSON: at, state, stage, reason, attempt, task_id
--   backlog        zset    ids in state queued; score = rank and age, the head has the lowest
--   state:<state>  zset    ids in any other state; score = when they entered it
--   flight         zset    ids that hold a slot; score = when they next need somebody
--   late           zset    ids, failed or cancelled, whose paid order may still deliver; score = when to ask
--   batches        zset    batch names; score = when the first job came
--   batch:<name>   hash    number of jobs by state; credits
--   batch:<name>:jobs zset its ids; score = when they came
--   counters       hash    <stage>.charges, <stage>.credits: for ever; corrected.credits, what repairs added to
--                          them; corrections, how often repairs corrected any counters
--   account        hash    credits left by our count, at (when upstream said it last)
--   balances       list    JSON: what upstream said was left, and what we had spent by then
--   turn:<name>    string  whose turn it is to do something that one worker does for all
--   gate           hash    reason, detail, since, until
--   events         stream  every move: id, batch, state, stage, reason; enqueueing as one event a call and
--                          batch, without an id
--   pulses         zset    worker names; score = when each was last heard
-- Times are Unix seconds, given by the caller.
local root = KEYS[1]
local function key(name) return root .. name end

local EVENTS_KEPT = 20000

-- A rank is worth more than any age: 10^9 seconds are thirty years. Not more, or the microseconds
-- that keep jobs of one call in order would be lost in rounding.
local function backlog_score(rank, created) return rank * 1e9 + created end

local function gate_closed(now)
  local gate = redis.call('HMGET', key('gate'), 'reason', 'until')
  return gate[1] and (not gate[2] or tonumber(gate[2]) > tonumber(now))
end

local function credits_spent()
  local spent = redis.call('HMGET', key('counters'), 'voice.credits', 'music.credits', 'corrected.credits')
  return tonumber(spent[1] or 0) + tonumber(spent[2] or 0) + tonumber(spent[3] or 0)
end

local function announce(id, batch, state, stage, reason)
  redis.call('XADD', key('events'), 'MAXLEN', '~', EVENTS_KEPT, '*',
    'id', id, 'batch', batch or '', 'state', state, 'stage', stage, 'reason', reason or '')
end

-- Where a job's state is written anew, the indexes and counters that follow from it are too.
local function reindex(id, batch, from, to, now)
  if from ~= 'queued' then redis.call('ZREM', key('state:' .. from), id) end
  if to ~= 'queued' then redis.call('ZADD', key('state:' .. to), now, id) end
  if batch then
    redis.call('HINCRBY', key('batch:' .. batch), from, -1)
    redis.call('HINCRBY', key('batch:' .. batch), to, 1)
  end
end

-- Where it stands when a job of this state next needs somebody; nil where none ever does.
local DUE = { admitted = 'flight', charging = 'flight', pending = 'flight', failed = 'late', cancelled = 'late' }
local function due_key(state) return DUE[state] and key(DUE[state]) end

-- Slot or place in the line: `due` where somebody is to look after it, the backlog where it is queued.
local function place(id, from, to, due, rank, created)
  local before, after = due_key(from), due and due_key(to)
  if before and before ~= after then redis.call('ZREM', before, id) end
  if after then redis.call('ZADD', after, due, id) end
  if to == 'queued' then
    redis.call('ZADD', key('backlog'), backlog_score(rank, created), id)
  elseif from == 'queued' then
    redis.call('ZREM', key('backlog'), id)
  end
end

-- Where an id stands in an index that it is missing from, by its record.
local function score_in(index, id, now)
  local job = redis.call('HMGET', key('job:' .. id), 'rank', 'created', 'updated')
  local created = job[2] or now
  local kind = index:match('^[^:]+')
  if kind == 'backlog' then return backlog_score(tonumber(job[1] or 0), tonumber(created)) end
  if kind == 'state' then return job[3] or created end
  if kind == 'batch' then return created end
  return now -- when somebody is to look after it
end

-- move: one step in a job's life, everything that follows from it included. The caller has compared
-- the record with what the step was decided on. m = {to, stage, due, reason, attempt, task_id}.
local function move(id, m, now)
  local job = redis.call('HMGET', key('job:' .. id), 'state', 'batch', 'rank', 'created', 'attempt')
  local from, batch = job[1], job[2]
  redis.call('HSET', key('job:' .. id), 'state', m.to, 'stage', m.stage, 'updated', now)
  redis.call('HINCRBY', key('job:' .. id), 'v', 1)
  reindex(id, batch, from, m.to, now)
  place(id, from, m.to, m.due, tonumber(job[3]), tonumber(job[4]))
  redis.call('RPUSH', key('timeline:' .. id), cjson.encode({
    at = now, state = m.to, stage = m.stage, reason = m.reason, task_id = m.task_id,
    attempt = tonumber(job[5] or 0) }))
  announce(id, batch, m.to, m.stage, m.reason)
  return batch
end
