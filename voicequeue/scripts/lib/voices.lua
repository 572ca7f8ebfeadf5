-- Voices that are made once and sung with often: one job makes each, the others wait for its persona.

-- Jobs that are let go, or failed, in one go; the rest is for the pulse.
local AT_ONCE = 500

local function voice_key(voice) return key('voice:' .. voice) end

-- Within a batch, and not by its recording: what others made of that is not meant.
local function is_named(voice) return voice:sub(1, 6) == 'named-' end

-- makes: whether this job is to make the voice: it is not there, and nobody else makes it. `url` is the voice that
-- is known by the recording's URL alone, and serves just as well.
local function makes(voice, url, id)
  local known = redis.call('HMGET', voice_key(voice), 'persona_id', 'maker')
  if not known[1] and url ~= '' and url ~= voice and not is_named(voice) then
    local made = redis.call('HGETALL', voice_key(url))
    if made[1] and redis.call('HEXISTS', voice_key(url), 'persona_id') == 1 then
      redis.call('HSET', voice_key(voice), unpack(made))
      return false
    end
  end
  if known[1] or known[2] then return known[2] == id end
  redis.call('HSET', voice_key(voice), 'maker', id)
  redis.call('HDEL', voice_key(voice), 'failure')
  return true
end

-- Whether this name of a voice stands for another recording already; if it stands for none yet, it does for this one.
local function is_other_recording(voice, url)
  if not is_named(voice) then return false end
  redis.call('HSETNX', voice_key(voice), 'recording', url)
  return redis.call('HGET', voice_key(voice), 'recording') ~= url
end

-- The job goes on with a voice that another one has made.
local function release(id, made, now)
  local job_key = key('job:' .. id)
  local next_stage = redis.call('HGET', job_key, 'next')
  redis.call('HSET', job_key, 'persona_id', made.persona_id)
  if made.name then redis.call('HSET', job_key, 'voice_name', made.name) end
  if not next_stage then redis.call('HSET', job_key, 'settled', now) end
  move(id, { to = next_stage and 'queued' or 'succeeded', stage = next_stage or 'voice',
    reason = 'sings with the voice of job ' .. made.job }, now)
end

local function fail_with(id, failure, now)
  redis.call('HSET', key('job:' .. id), 'failure', failure, 'settled', now)
  count_failure(failure, 1)
  move(id, { to = 'failed', stage = 'voice', reason = cjson.decode(failure).code }, now)
end

-- settle_waiting: what the voice has come to holds for those who wait for it: they go on with it, fail with it, or
-- the first of them makes it.
local function settle_waiting(voice, now)
  local made = fields_of('voice:' .. voice, { 'persona_id', 'name', 'job', 'maker', 'failure' })
  local ids = redis.call('ZRANGE', key('waiting:' .. voice), 0, AT_ONCE - 1)
  if made.maker then ids = {} end
  if not made.maker and not made.persona_id and not made.failure and ids[1] then
    redis.call('HSET', voice_key(voice), 'maker', ids[1])
    move(ids[1], { to = 'queued', stage = 'voice', reason = 'makes the voice, for nobody else does any more' }, now)
    ids = {}
  end
  for _, id in ipairs(ids) do
    if made.persona_id then release(id, made, now) else fail_with(id, made.failure, now) end
  end
  if #ids == AT_ONCE then
    redis.call('SADD', key('voices:due'), voice)
  else
    redis.call('SREM', key('voices:due'), voice)
  end
  return #ids
end

-- A new job makes the voice that it shares (1), or waits for it if somebody else does, or has (2).
local function share(job, now)
  if makes(job.voice, job.url, job.id) then return 1 end
  move(job.id, { to = 'waiting', stage = 'voice', reason = 'shares a voice' }, now)
  settle_waiting(job.voice, now)
  return 2
end

-- The persona of a job has come: whoever may share it has it from now on.
local function voice_made(id, now)
  local job = fields_of('job:' .. id, { 'spec', 'sha256', 'shares', 'persona_id', 'voice_name' })
  local asked = cjson.decode(job.spec)
  if not asked.audio_url then return end
  local voices = { 'url-' .. redis.sha1hex(asked.audio_url) }
  if job.sha256 then voices[#voices + 1] = 'sha256-' .. job.sha256 end
  if job.shares and is_named(job.shares) then voices[#voices + 1] = job.shares end
  redis.call('ZADD', key('voices'), now, voices[1])
  for _, voice in ipairs(voices) do
    local maker = redis.call('HGET', voice_key(voice), 'maker')
    redis.call('HSET', voice_key(voice), 'persona_id', job.persona_id, 'job', id, 'at', now,
      'audio_url', asked.audio_url)
    if job.voice_name then redis.call('HSET', voice_key(voice), 'name', job.voice_name) end
    redis.call('HDEL', voice_key(voice), 'maker', 'failure')
    -- Whoever was about to make it as well need not.
    if maker and maker ~= id and redis.call('HGET', key('job:' .. maker), 'state') == 'queued' then
      release(maker, { persona_id = job.persona_id, name = job.voice_name, job = id }, now)
    end
    settle_waiting(voice, now)
  end
end

-- A job that shares a voice has moved at its voice stage: what follows for those who wait for it. Who was cancelled
-- after upstream was paid still makes it; who did not begin in time leaves it to the next.
local function voice_follows(id, voice, m, now)
  local maker = redis.call('HGET', voice_key(voice), 'maker')
  if not FINAL[m.to] then
    if m.to ~= 'waiting' then redis.call('HSETNX', voice_key(voice), 'maker', id) end
    if m.to == 'waiting' then settle_waiting(voice, now) end
  elseif maker == id and not (m.to == 'cancelled' and m.due) then
    redis.call('HDEL', voice_key(voice), 'maker')
    local failure = m.to == 'failed' and cjson.decode(redis.call('HGET', key('job:' .. id), 'failure'))
    if failure and failure.code ~= 'expired' then
      failure.message = 'the voice it shares, made by job ' .. id .. ': ' .. failure.message
      redis.call('HSET', voice_key(voice), 'failure', cjson.encode(failure))
    end
    settle_waiting(voice, now)
  end
end
