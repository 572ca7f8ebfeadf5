-- Callbacks: notifications of callers, written by the script that makes the transition they report.

local REPORTED = { succeeded = true, failed = true, unsure = true }
local RESTING = { succeeded = true, failed = true, cancelled = true, unsure = true }
local UNSETTLED = { 'waiting', 'queued', 'admitted', 'charging', 'pending' }

-- Fields of a job's record that a callback copies, as they are at its transition. The spec never changes.
local JOB_SNAPSHOT = { 'state', 'stage', 'version', 'created', 'updated', 'settled', 'attempt', 'credits', 'persona_id',
  'voice_name', 'clips', 'failure', 'cancelling', 'source', 'source_row' }

-- Add a callback to its subject (a job or a batch). Only the first callback of a subject is due; the next waits for it.
local function add_callback(id, subject, seq, now)
  redis.call('ZADD', key('callbacks:order:' .. subject), seq, id)
  local first, second = unpack(redis.call('ZRANGE', key('callbacks:order:' .. subject), 0, 1))
  redis.call('ZADD', key('callbacks:pending'), first == id and now or '+inf', id)
  if first == id and second then redis.call('ZADD', key('callbacks:pending'), '+inf', second) end
end

-- Remove a callback that is delivered or undelivered, and make the next one of its subject due.
local function remove_callback(id, subject, now)
  redis.call('ZREM', key('callbacks:pending'), id)
  redis.call('ZREM', key('callbacks:leased'), id)
  redis.call('ZREM', key('callbacks:order:' .. subject), id)
  local first = redis.call('ZRANGE', key('callbacks:order:' .. subject), 0, 0)[1]
  -- Any other score is the end of a claim, or the time of the next attempt.
  if first and redis.call('ZSCORE', key('callbacks:pending'), first) == 'inf' then
    redis.call('ZADD', key('callbacks:pending'), now, first)
  end
end

local function write_callback(id, callback, now)
  redis.call('HSET', key('callback:' .. id), 'subject', callback.subject, 'seq', callback.seq, 'type', callback.type,
    'at', now, 'snapshot', cjson.encode(callback.snapshot), 'batch', callback.batch or '')
  add_callback(id, callback.subject, callback.seq, now)
end

local function has_callback_url(id)
  local spec = redis.call('HGET', JOB .. id, 'spec')
  if not (spec and spec:find('"callback_url"', 1, true)) then return false end
  local is_readable, fields = pcall(cjson.decode, spec)
  return is_readable and fields.callback_url ~= nil
end

local function write_job_callback(id, batch, to, version, now)
  local callback = id .. '-' .. version .. '-' .. math.floor(now)
  redis.call('HSET', JOB .. id, 'callback', callback)
  write_callback(callback, { subject = 'job:' .. id, seq = version, type = 'job.' .. to,
    snapshot = read_fields('job:' .. id, JOB_SNAPSHOT), batch = batch }, now)
end

-- Write a callback about a batch, with its counters as they are now.
local function write_batch_callback(batch, type, now)
  local seq = redis.call('HINCRBY', key('batch:' .. batch), 'settled_count', 1)
  local snapshot, record = {}, redis.call('HGETALL', key('batch:' .. batch))
  for f = 1, #record, 2 do snapshot[record[f]] = record[f] ~= 'callback_url' and record[f + 1] or nil end
  write_callback('batch-' .. redis.sha1hex(batch):sub(1, 16) .. '-' .. seq .. '-' .. math.floor(now),
    { subject = 'batch:' .. batch, seq = seq, type = type, snapshot = snapshot, batch = batch }, now)
end

-- Return whether callbacks about a batch are sent; read once by each script.
local notified = {}
local function has_batch_callback(batch)
  if notified[batch] == nil then notified[batch] = redis.call('HEXISTS', key('batch:' .. batch), 'callback_url') == 1 end
  return notified[batch]
end

-- Report that a batch has settled, if it has.
local function enqueue_settled_callback(batch, from, now)
  flush_counters()
  local counts = redis.call('HMGET', key('batch:' .. batch), 'unsure', unpack(UNSETTLED))
  -- A callback already reported that the batch settled; report it again only when no job is unsure.
  if RESTING[from] and tonumber(counts[1] or 0) > 0 then return end
  for i = 2, #UNSETTLED + 1 do if tonumber(counts[i] or 0) > 0 then return end end
  write_batch_callback(batch, 'batch.settled', now)
end

-- Report that a batch has stopped itself.
local function enqueue_stopped_callback(batch, now)
  if has_batch_callback(batch) then write_batch_callback(batch, 'batch.stopped', now) end
end

-- Enqueue the callbacks that a job's transition to a state of rest causes. `version` is the job's version after it.
local function enqueue_callbacks(id, batch, from, to, version, now)
  if REPORTED[to] and has_callback_url(id) then write_job_callback(id, batch, to, version, now) end
  local may_have_settled = is_batch(batch) and (from == 'unsure' or not RESTING[from])
  if may_have_settled and has_batch_callback(batch) then enqueue_settled_callback(batch, from, now) end
end
