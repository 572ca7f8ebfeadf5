-- Voices that are created once and shared: one job creates each, the others wait for its persona.

-- How many waiting jobs one script may still release or fail, for all voices; maintenance processes the others.
local release_budget = 500

local function voice_key(voice) return key('voice:' .. voice) end

-- A named voice belongs to a batch; voices that others made from the same recording do not count for it.
local function is_of_kind(voice, kind) return voice:match('[^/]*$'):sub(1, #kind + 1) == kind .. '-' end
local function is_named(voice) return is_of_kind(voice, 'named') end

-- Make the job the creator of the voice, unless the voice exists or another job creates it. Returns whether it is.
local function become_creator(voice, id)
  local record = redis.call('HMGET', voice_key(voice), 'persona_id', 'creator')
  if record[1] or record[2] then return record[2] == id end
  redis.call('HSET', voice_key(voice), 'creator', id)
  redis.call('HDEL', voice_key(voice), 'failure')
  return true
end

-- Return whether this name already denotes another recording; an unused name denotes this one from now on, as long as
-- jobs with that name exist.
local function is_other_recording(voice, url)
  if not is_named(voice) then return false end
  if redis.call('HSETNX', voice_key(voice), 'recording', url) == 1 then
    redis.call('HSET', voice_key(voice), 'jobs', 0)
  end
  return redis.call('HGET', voice_key(voice), 'recording') ~= url
end

-- Forget a name that `is_other_recording` has given, and that no job uses.
local function forget_unused_name(voice)
  if is_named(voice) and redis.call('HGET', voice_key(voice), 'jobs') == '0' then redis.call('DEL', voice_key(voice)) end
end

-- Give the job a voice that another job has created.
local function use_voice(id, created, now)
  local job_key = JOB .. id
  local next_stage = redis.call('HGET', job_key, 'next_stage')
  redis.call('HSET', job_key, 'persona_id', created.persona_id)
  if created.name then redis.call('HSET', job_key, 'voice_name', created.name) end
  if not next_stage then redis.call('HSET', job_key, 'settled', now) end
  transition(id, { to = next_stage and 'queued' or 'succeeded', stage = next_stage or 'voice',
    reason = 'uses voice from job ' .. created.job }, now)
end

local function fail_with(id, failure, now)
  redis.call('HSET', JOB .. id, 'failure', failure, 'settled', now)
  local job = transition(id, { to = 'failed', stage = 'voice', reason = cjson.decode(failure).code }, now)
  count_failure(failure, job, 1)
end

-- Apply the outcome of a voice to the jobs that wait for it: they use it, fail with it, or the first of them creates
-- it.
-- Returns how many were released or failed.
local function settle_waiting(voice, now)
  local record = read_fields('voice:' .. voice, { 'persona_id', 'name', 'job', 'creator', 'failure' })
  local is_decided = record.persona_id or (record.failure and not record.creator)
  local ids = {}
  if is_decided and release_budget > 0 then
    ids = redis.call('ZRANGE', key('waiting:' .. voice), 0, release_budget - 1)
    release_budget = release_budget - #ids
  elseif not is_decided and not record.creator then
    local first = redis.call('ZRANGE', key('waiting:' .. voice), 0, 0)[1]
    if first then
      redis.call('HSET', voice_key(voice), 'creator', first)
      transition(first, { to = 'queued', stage = 'voice', reason = 'creates the voice: no other job does' }, now)
    end
  end
  for _, id in ipairs(ids) do
    if record.persona_id then use_voice(id, record, now) else fail_with(id, record.failure, now) end
  end
  local has_more = is_decided and redis.call('EXISTS', key('waiting:' .. voice)) == 1
  redis.call(has_more and 'SADD' or 'SREM', key('voices:decided'), voice)
  return #ids
end

-- Let a job that has not paid for a voice use an existing one. If it was the creator, the waiting jobs continue too.
-- Returns whether the voice exists.
local function use_if_created(id, voice, now)
  local record = read_fields('voice:' .. voice, { 'persona_id', 'name', 'job', 'creator' })
  if not record.persona_id then return false end
  use_voice(id, record, now)
  if record.creator == id then
    redis.call('HDEL', voice_key(voice), 'creator')
    settle_waiting(voice, now)
  end
  return true
end

-- Copy a voice that exists only under the URL of its recording.
local function copy_from_url(voice, url, now)
  if is_named(voice) or url == voice or redis.call('HEXISTS', voice_key(voice), 'persona_id') == 1 then return end
  if redis.call('HEXISTS', voice_key(url), 'persona_id') == 0 then return end
  redis.call('HSET', voice_key(voice), unpack(redis.call('HGETALL', voice_key(url))))
  redis.call('HDEL', voice_key(voice), 'creator', 'failure')
  settle_waiting(voice, now)
end

-- Make this job the creator instead of a queued one, which waits.
local function replace_creator(voice, creator, id, now)
  redis.call('HSET', voice_key(voice), 'creator', id)
  transition(creator, { to = 'waiting', stage = 'voice', reason = 'job ' .. id .. ' creates the voice sooner' }, now)
end

-- Make this job the creator if the current creator is queued and starts later: its priority is lower, or it may not start
-- (its batch is paused, or a limit is reached). Returns whether it did.
local function take_over_creation(voice, id, now)
  local creator_id = redis.call('HGET', voice_key(voice), 'creator')
  local creator = creator_id and read_fields('job:' .. creator_id, { 'state', 'rank', 'batch', 'next_stage', 'source' })
  if not creator or creator.state ~= 'queued' then return false end
  local job = read_fields('job:' .. id, { 'rank', 'batch', 'next_stage', 'source' })
  local function may_start(record)
    return #limit_holds(record, 1, cost_from_stage('voice', record.next_stage), now) == 0
  end
  local is_blocked = not may_start(creator)
  if not may_start(job) or not (is_blocked or job.rank < creator.rank) then return false end
  replace_creator(voice, creator_id, id, now)
  return true
end

-- Remove a purged job from the voice that it shared. The last job of a name frees the name; any other voice is kept
-- only if it was created.
local function leave_voice(voice)
  local record = redis.call('HMGET', voice_key(voice), 'jobs', 'persona_id', 'creator')
  local jobs_left = record[1] and redis.call('HINCRBY', voice_key(voice), 'jobs', -1)
  local is_needed = is_named(voice) or record[2] or record[3] or redis.call('EXISTS', key('waiting:' .. voice)) == 1
  if jobs_left == 0 or not is_needed then redis.call('DEL', voice_key(voice)) end
end

-- Let a new job create the voice that it shares (1), or wait for or use the voice of another job (2).
local function share_voice(job, now)
  if redis.call('HEXISTS', voice_key(job.voice), 'jobs') == 1 then
    redis.call('HINCRBY', voice_key(job.voice), 'jobs', 1)
  end
  copy_from_url(job.voice, job.url, now)
  if become_creator(job.voice, job.id) then return 1 end
  if take_over_creation(job.voice, job.id, now) then return 2 end -- the voice is counted for the previous creator
  transition(job.id, { to = 'waiting', stage = 'voice', reason = 'shares a voice' }, now)
  use_if_created(job.id, job.voice, now)
  return 2
end

-- Return the URL of the recording of a job. It is the first field of a canonical spec that has one.
local function audio_url_of(spec) return spec:match('^{"audio_url":"([^"\\]*)"') or cjson.decode(spec).audio_url end

-- Make a voice known that was created. Returns the id of another job that was to create it.
local function write_voice(voice, id, created, audio_url, now)
  local record = redis.call('HMGET', voice_key(voice), 'creator', 'failure')
  local fields = { 'persona_id', created.persona_id, 'job', id, 'at', now, 'audio_url', audio_url }
  if created.voice_name then fields[9], fields[10] = 'name', created.voice_name end
  redis.call('HSET', voice_key(voice), unpack(fields))
  if record[1] or record[2] then redis.call('HDEL', voice_key(voice), 'creator', 'failure') end
  return record[1] ~= id and record[1]
end

-- The voice of a job was created: make it available to every job that may share it. `created` has its persona_id and name.
local function voice_created(id, job, created, now)
  local spec, sha256 = unpack(redis.call('HMGET', JOB .. id, 'spec', 'sha256'))
  local audio_url = audio_url_of(spec)
  if not audio_url then return end
  local namespace = namespace_of(job.batch)
  local prefix = namespace == '' and '' or namespace .. '/'
  local voices = { prefix .. 'url-' .. redis.sha1hex(audio_url) }
  if sha256 then voices[#voices + 1] = prefix .. 'sha256-' .. sha256 end
  if job.shared_voice and is_named(job.shared_voice) then voices[#voices + 1] = job.shared_voice end
  set_score(key(index_of('voices', namespace)), voices[1], now)
  for _, voice in ipairs(voices) do
    local creator = write_voice(voice, id, created, audio_url, now)
    -- A queued creator of the same voice need not pay for it.
    if creator and redis.call('HGET', JOB .. creator, 'state') == 'queued' then
      use_voice(creator, { persona_id = created.persona_id, name = created.voice_name, job = id }, now)
    end
    if redis.call('EXISTS', key('waiting:' .. voice)) == 1 then settle_waiting(voice, now) end
  end
end

-- Apply a transition of a sharing job in its voice stage to the jobs that wait for the voice. A job that was
-- cancelled after it was charged still creates the voice; one that did not start in time leaves it to the next.
local function voice_stage_changed(id, voice, t, now)
  local creator = redis.call('HGET', voice_key(voice), 'creator')
  if not FINAL[t.to] then
    if t.to ~= 'waiting' then redis.call('HSETNX', voice_key(voice), 'creator', id) end
    if t.to == 'waiting' then use_if_created(id, voice, now) end
    -- Its order was charged and is polled again: no other job needs to pay.
    local is_charged = t.to == 'pending' and creator and creator ~= id
    if is_charged and redis.call('HGET', JOB .. creator, 'state') == 'queued' then
      replace_creator(voice, creator, id, now)
    end
  elseif creator == id and not (t.to == 'cancelled' and t.due) then
    redis.call('HDEL', voice_key(voice), 'creator')
    local failure = t.to == 'failed' and cjson.decode(redis.call('HGET', JOB .. id, 'failure'))
    -- A job marked for cancellation and then given up leaves the voice to the next, too.
    -- Jobs with the same recording may have another URL of it.
    local is_own = failure and (failure.code == 'expired' or (t.was_cancelling and failure.code == 'abandoned')
      or (is_of_kind(voice, 'sha256') and failure.code:sub(1, 10) == 'recording_'))
    if failure and not is_own then
      failure.message = 'shared voice from job ' .. id .. ': ' .. failure.message
      redis.call('HSET', voice_key(voice), 'failure', cjson.encode(failure))
    end
    settle_waiting(voice, now)
  end
end
