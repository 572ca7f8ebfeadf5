-- Callbacks: what a caller is to be told, written with the move that it tells of.

local TOLD = { succeeded = true, failed = true, unsure = true }
local RESTING = { succeeded = true, failed = true, cancelled = true, unsure = true }
local UNSETTLED = { 'waiting', 'queued', 'admitted', 'charging', 'pending' }
local ALL_STATES = { 'waiting', 'queued', 'admitted', 'charging', 'pending', 'unsure', 'succeeded', 'failed', 'cancelled' }

-- What of a job's record is told as it stood then; what was asked for does not change.
local AS_IT_STOOD = { 'state', 'stage', 'v', 'created', 'updated', 'settled', 'attempt', 'credits', 'persona_id',
  'voice_name', 'clips', 'failure', 'cancelling', 'origin' }

-- Of what is told of one job or batch only the first is due; whatever is next waits for it.
local function await(id, subject, seq, now)
  redis.call('ZADD', key('callbacks:of:' .. subject), seq, id)
  local line = redis.call('ZRANGE', key('callbacks:of:' .. subject), 0, 1)
  redis.call('ZADD', key('callbacks:pending'), line[1] == id and now or '+inf', id)
  if line[1] == id and line[2] then redis.call('ZADD', key('callbacks:pending'), '+inf', line[2]) end
end

-- It is over, or given up: the next one of its job or batch is due.
local function leave_callbacks(id, subject, now)
  redis.call('ZREM', key('callbacks:pending'), id)
  redis.call('ZREM', key('callbacks:out'), id)
  redis.call('ZREM', key('callbacks:of:' .. subject), id)
  local first = redis.call('ZRANGE', key('callbacks:of:' .. subject), 0, 0)[1]
  -- Any other score says that somebody is at it, or when it is to be tried again.
  if first and redis.call('ZSCORE', key('callbacks:pending'), first) == 'inf' then
    redis.call('ZADD', key('callbacks:pending'), now, first)
  end
end

local function call_back(id, about, now)
  redis.call('HSET', key('callback:' .. id), 'subject', about.subject, 'seq', about.seq, 'type', about.type,
    'at', now, 'data', cjson.encode(about.data), 'batch', about.batch or '')
  await(id, about.subject, about.seq, now)
end

local function has_callback_url(id)
  local spec = redis.call('HGET', key('job:' .. id), 'spec')
  if not (spec and spec:find('"callback_url"', 1, true)) then return false end
  local readable, asked = pcall(cjson.decode, spec)
  return readable and asked.callback_url ~= nil
end

local function tell_of_job(id, batch, to, v, now)
  if not has_callback_url(id) then return end
  local callback = id .. '-' .. v .. '-' .. math.floor(now)
  redis.call('HSET', key('job:' .. id), 'callback', callback)
  call_back(callback, { subject = 'job:' .. id, seq = v, type = 'job.' .. to,
    data = fields_of('job:' .. id, AS_IT_STOOD), batch = batch }, now)
end

local function tell_of_batch(batch, from, now)
  if redis.call('HEXISTS', key('batch:' .. batch), 'callback_url') == 0 then return end
  write_sums()
  local found = redis.call('HMGET', key('batch:' .. batch), 'unsure', unpack(UNSETTLED))
  -- It was told already that all rests: again only when nothing waits for a person any more.
  if RESTING[from] and tonumber(found[1] or 0) > 0 then return end
  for i = 2, #UNSETTLED + 1 do if tonumber(found[i] or 0) > 0 then return end end
  local times = redis.call('HINCRBY', key('batch:' .. batch), 'settlings', 1)
  local data = fields_of('batch:' .. batch, { 'credits', 'committed', 'callback_origin', unpack(ALL_STATES) })
  call_back('batch-' .. redis.sha1hex(batch):sub(1, 16) .. '-' .. times .. '-' .. math.floor(now),
    { subject = 'batch:' .. batch, seq = times, type = 'batch.settled', data = data, batch = batch }, now)
end

-- A job has moved from one state to another: whoever asked for it is told. v is the version that it stands at.
local function tell(id, batch, from, to, v, now)
  if TOLD[to] then tell_of_job(id, batch, to, v, now) end
  if batch and RESTING[to] and (from == 'unsure' or not RESTING[from]) then tell_of_batch(batch, from, now) end
end
