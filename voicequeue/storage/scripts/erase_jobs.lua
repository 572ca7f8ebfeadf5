-- erase_jobs: delete settled jobs with all that only they need, and their voices. Others are marked, and erased later.
-- KEYS  root
-- ARGV  now, the secret of tombstones to use if there is none, then ids
-- RETURNS  for each id 1 = erased, 2 = marked, 0 = no such job
local now = ARGV[1]
redis.call('HSETNX', key('tombstones'), 'secret', ARGV[2])
local secret = redis.call('HGET', key('tombstones'), 'secret')

-- Delete a callback in any state.
local function delete_callback(id)
  for _, index in ipairs({ 'pending', 'leased', 'undelivered' }) do redis.call('ZREM', key('callbacks:' .. index), id) end
  redis.call('DEL', key('callback:' .. id))
end

local function delete_callbacks(subject)
  for _, id in ipairs(redis.call('ZRANGE', key('callbacks:order:' .. subject), 0, -1)) do delete_callback(id) end
  redis.call('DEL', key('callbacks:order:' .. subject))
end

-- Delete the voice, for all jobs that share it; a name keeps its recording while other jobs have it.
local function erase_voice(voice, id)
  local creator = redis.call('HGET', voice_key(voice), 'creator')
  redis.call('HDEL', voice_key(voice), 'persona_id', 'name', 'job', 'at', 'audio_url', 'failure')
  redis.call('ZREM', key(index_of('voices', namespace_of(voice))), voice)
  if creator == id then redis.call('HDEL', voice_key(voice), 'creator') end
  settle_waiting(voice, now)
end

-- Let an archive worker delete the files of a job, once no worker can be storing them.
local function schedule_deletion(id, job)
  if not job.archive then return end
  local due = redis.call('HEXISTS', key('job:' .. id), 'archive.holder') == 1
    and redis.call('ZSCORE', key('archive:pending'), id) or now
  redis.call('ZADD', key('erased_files'), due, cjson.encode({ id = id, batch = job.batch or '' }))
end

local function erase(id, job)
  local audio_url = cjson.decode(job.spec).audio_url
  local names = recordings_of(job.batch, audio_url, job.sha256)
  for _, name in ipairs(names) do redis.call('HSET', key('tombstones'), tombstone(secret, name), now) end
  redis.call('HSET', key('tombstones'), tombstone(secret, id), now)
  if audio_url then redis.call('DEL', key('recording_check:' .. redis.sha1hex(audio_url))) end
  schedule_deletion(id, job)
  for _, index in ipairs({ 'late_results', 'start_by', 'resting', 'rate_limited', 'erasing', 'archive:pending', 'archive:leased' }) do
    redis.call('ZREM', key(index), id)
  end
  delete_callbacks('job:' .. id)
  if job.callback then delete_callback(job.callback) end
  remove_job(id, job)
  if job.shared_voice then names[#names + 1] = job.shared_voice end
  for _, voice in ipairs(names) do
    erase_voice(voice, id)
    if not is_named(voice) and redis.call('EXISTS', key('waiting:' .. voice)) == 0
      and redis.call('HEXISTS', voice_key(voice), 'creator') == 0 then
      redis.call('DEL', voice_key(voice))
    end
  end
  -- A batch that has no other job is the person's, too: its name, settings and callbacks.
  if is_batch(job.batch) and redis.call('EXISTS', key('batch:' .. job.batch .. ':jobs')) == 0 then
    flush_counters()
    redis.call('DEL', key('batch:' .. job.batch))
    delete_callbacks('batch:' .. job.batch)
  end
end

local outcomes = {}
for a = 3, #ARGV do
  local id = ARGV[a]
  local job = read_fields('job:' .. id, { 'spec', 'archive', 'callback', 'sha256', unpack(RECORD_FIELDS) })
  if job.state and FINAL[job.state] then
    erase(id, job)
  elseif job.state then
    redis.call('ZADD', key('erasing'), 'NX', now, id)
  end
  outcomes[#outcomes + 1] = not job.state and 0 or FINAL[job.state] and 1 or 2
end
return outcomes
