-- Voices that are made once and sung with often: one job makes each, the others wait for its persona.

-- Jobs that one script may still let go, or fail, for whatever many voices; the rest is for the pulse.
local room = 500

local function voice_key(voice) return key('voice:' .. voice) end

-- Within a batch, and not by its recording: what others made of that is not meant.
local function is_named(voice) return voice:sub(1, 6) == 'named-' end

-- makes: whether this job is to make the voice: it is not there, and nobody else makes it.
local function makes(voice, id)
  local known = redis.call('HMGET', voice_key(voice), 'persona_id', 'maker')
  if known[1] or known[2] then return known[2] == id end
  redis.call('HSET', voice_key(voice), 'maker', id)
  redis.call('HDEL', voice_key(voice), 'failure')
  return true
end

-- Whether this name of a voice stands for another recording already; if it stands for none yet, it does for this one,
-- as long as jobs of that name are kept.
local function is_other_recording(voice, url)
  if not is_named(voice) then return false end
  if redis.call('HSETNX', voice_key(voice), 'recording', url) == 1 then
    redis.call('HSET', voice_key(voice), 'jobs', 0)
  end
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
  local decided = made.persona_id or (made.failure and not made.maker)
  local ids = {}
  if decided and room > 0 then
    ids = redis.call('ZRANGE', key('waiting:' .. voice), 0, room - 1)
    room = room - #ids
  elseif not decided and not made.maker then
    local first = redis.call('ZRANGE', key('waiting:' .. voice), 0, 0)[1]
    if first then
      redis.call('HSET', voice_key(voice), 'maker', first)
      move(first, { to = 'queued', stage = 'voice', reason = 'makes the voice, for nobody else does any more' }, now)
    end
  end
  for _, id in ipairs(ids) do
    if made.persona_id then release(id, made, now) else fail_with(id, made.failure, now) end
  end
  local is_due = decided and redis.call('EXISTS', key('waiting:' .. voice)) == 1
  redis.call(is_due and 'SADD' or 'SREM', key('voices:due'), voice)
  return #ids
end

-- takes: whether the voice is there, and a job that has not paid for one goes on with it. Who was to make it leaves
-- that, and those who waited for him go on too.
local function takes(id, voice, now)
  local made = fields_of('voice:' .. voice, { 'persona_id', 'name', 'job', 'maker' })
  if not made.persona_id then return false end
  release(id, made, now)
  if made.maker == id then
    redis.call('HDEL', voice_key(voice), 'maker')
    settle_waiting(voice, now)
  end
  return true
end

-- A voice that is known by its recording's URL alone so far serves just as well.
local function learn(voice, url, now)
  if is_named(voice) or url == voice or redis.call('HEXISTS', voice_key(voice), 'persona_id') == 1 then return end
  if redis.call('HEXISTS', voice_key(url), 'persona_id') == 0 then return end
  redis.call('HSET', voice_key(voice), unpack(redis.call('HGETALL', voice_key(url))))
  redis.call('HDEL', voice_key(voice), 'maker', 'failure')
  settle_waiting(voice, now)
end

-- This job makes the voice from now on, and not the one in the backlog that was to; that one waits.
local function make_instead(voice, maker, id, now)
  redis.call('HSET', voice_key(voice), 'maker', id)
  move(maker, { to = 'waiting', stage = 'voice', reason = 'job ' .. id .. ' makes the voice sooner' }, now)
end

-- yields: whether the job that is to make the voice is still in the backlog and leaves it to this one, which comes
-- sooner: it has a higher priority, or the other's batch may begin nothing (it is paused, or its credits are spent).
local function yields(voice, id, now)
  local maker = redis.call('HGET', voice_key(voice), 'maker')
  local its = maker and fields_of('job:' .. maker, { 'state', 'rank', 'batch', 'next' })
  if not its or its.state ~= 'queued' then return false end
  local mine = fields_of('job:' .. id, { 'rank', 'batch', 'next' })
  local function may_begin(job) return batch_allows(job.batch or '', cost_from('voice', job.next)) end
  local is_held = not may_begin(its)
  if not may_begin(mine) or not (is_held or mine.rank < its.rank) then return false end
  make_instead(voice, maker, id, now)
  return true
end

-- A job that shared the voice is purged. With the last one of its name the name is free again; of any other voice only
-- what was made is kept.
local function leave_voice(voice)
  local known = redis.call('HMGET', voice_key(voice), 'jobs', 'persona_id', 'maker')
  local left = known[1] and redis.call('HINCRBY', voice_key(voice), 'jobs', -1)
  local is_of_use = is_named(voice) or known[2] or known[3] or redis.call('EXISTS', key('waiting:' .. voice)) == 1
  if left == 0 or not is_of_use then redis.call('DEL', voice_key(voice)) end
end

-- A new job makes the voice that it shares (1), or waits for it if somebody else does, or has (2).
local function share(job, now)
  if redis.call('HEXISTS', voice_key(job.voice), 'jobs') == 1 then
    redis.call('HINCRBY', voice_key(job.voice), 'jobs', 1)
  end
  learn(job.voice, job.url, now)
  if makes(job.voice, job.id) then return 1 end
  if yields(job.voice, job.id, now) then return 2 end -- the other one's order counts the voice
  move(job.id, { to = 'waiting', stage = 'voice', reason = 'shares a voice' }, now)
  takes(job.id, job.voice, now)
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
    if m.to == 'waiting' then takes(id, voice, now) end
    -- Its order was paid, and is asked about again: nobody need pay for another.
    local is_paid = m.to == 'pending' and maker and maker ~= id
    if is_paid and redis.call('HGET', key('job:' .. maker), 'state') == 'queued' then
      make_instead(voice, maker, id, now)
    end
  elseif maker == id and not (m.to == 'cancelled' and m.due) then
    redis.call('HDEL', voice_key(voice), 'maker')
    local failure = m.to == 'failed' and cjson.decode(redis.call('HGET', key('job:' .. id), 'failure'))
    -- Who was to be cancelled, and is given up, leaves it to the next as well.
    local is_own = failure and (failure.code == 'expired' or (m.withdrawn and failure.code == 'abandoned'))
    if failure and not is_own then
      failure.message = 'the voice it shares, made by job ' .. id .. ': ' .. failure.message
      redis.call('HSET', voice_key(voice), 'failure', cjson.encode(failure))
    end
    settle_waiting(voice, now)
  end
end
