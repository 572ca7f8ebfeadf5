-- Erasure of a settled job: its record, callbacks and voices; keyed hashes of its id and recording stay.

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
local function erase_voice(voice, id, now)
  local creator = redis.call('HGET', voice_key(voice), 'creator')
  redis.call('HDEL', voice_key(voice), 'persona_id', 'name', 'job', 'at', 'audio_url', 'failure')
  set_score(key(index_of('voices', namespace_of(voice))), voice, false)
  if creator == id then redis.call('HDEL', voice_key(voice), 'creator') end
  settle_waiting(voice, now)
end

-- Let an archive worker delete the files of a job, once no worker can be storing them.
local function schedule_deletion(id, job, now)
  if not job.archive then return end
  local due = redis.call('HEXISTS', JOB .. id, 'archive.holder') == 1
    and redis.call('ZSCORE', key('archive:pending'), id) or now
  redis.call('ZADD', key('erased_files'), due, cjson.encode({ id = id, batch = job.batch or '' }))
end

-- Delete the summaries of all ranges that a job was ever in: they say whether one of their jobs had a name.
local function drop_summaries_of_life(id, job)
  local lane = 'lane:' .. job.rank .. ':' .. (job.batch or '')
  local function drop_in_lane(at)
    for _, stage in ipairs({ 'voice', 'music' }) do drop_summary(lane, lane_score(stage, tonumber(at))) end
  end
  drop_in_lane(job.created)
  for _, line in ipairs(redis.call('LRANGE', TIMELINE .. id, 0, -1)) do
    local step = cjson.decode(line)
    drop_summary(index_of('state:' .. step.state, namespace_of(job.batch)), step.at)
    if step.state == 'queued' then drop_in_lane(step.at) end
  end
  drop_summary_of(id)
end

-- Keep the tombstone of an id, and list what may still name it. Also for a job that no longer exists: another call, or
-- the purge, deleted its record and perhaps not what names it.
local function forget_id(id, batch, recording, secret, now)
  redis.call('HSET', key('tombstones'), tombstone(secret, id), now)
  redis.call('ZREM', key('erasing'), id)
  redis.call('SADD', key('erased_traces'),
    cjson.encode({ id = id, batch = is_batch(batch) and batch or '', recording = recording or '' }))
end

-- Returns the voice of its recording by URL, under which copies of its voice are found; nil without a URL.
local function erase_job(id, job, secret, now)
  local audio_url = cjson.decode(job.spec).audio_url
  local names = recordings_of(job.batch, audio_url, job.sha256)
  for _, name in ipairs(names) do redis.call('HSET', key('tombstones'), tombstone(secret, name), now) end
  local recording = audio_url and names[1]
  if audio_url then redis.call('DEL', key('recording_check:' .. redis.sha1hex(audio_url))) end
  schedule_deletion(id, job, now)
  for _, index in ipairs({ 'late_results', 'start_by', 'resting', 'rate_limited', 'archive:pending', 'archive:leased' }) do
    set_score(key(index), id, false)
  end
  delete_callbacks('job:' .. id)
  if job.callback then delete_callback(job.callback) end
  drop_summaries_of_life(id, job)
  remove_job(id, job)
  if job.shared_voice then names[#names + 1] = job.shared_voice end
  for _, voice in ipairs(names) do
    erase_voice(voice, id, now)
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
    for rank = 0, 2 do delete_summaries('lane:' .. rank .. ':' .. job.batch) end
  end
  return recording
end
