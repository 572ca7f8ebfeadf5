-- correct_recording: give jobs another recording before any order for their voice was accepted. Enqueueing them again
-- with their earlier content still finds them.
-- KEYS  root
-- ARGV  now, the voice by its new URL, reason, then for each job: id, version, spec, shared voice ('' = none)
-- RETURNS  for each job 1 = written, 0 = its version has changed
local now, recording, reason = ARGV[1], ARGV[2], ARGV[3]
local MAY_CHANGE = { failed = true, queued = true, waiting = true }

local function correct(id, version, spec, voice)
  local job = read_record(id)
  if job.version ~= version or job.stage ~= 'voice' or not MAY_CHANGE[job.state] then return 0 end
  local before = redis.call('HMGET', JOB .. id, 'spec', 'earlier_specs')
  local earlier = before[2] and cjson.decode(before[2]) or {}
  earlier[#earlier + 1] = redis.sha1hex(before[1])
  redis.call('HSET', JOB .. id, 'spec', spec, 'earlier_specs', cjson.encode(earlier), 'version', version + 1)
  redis.call('HDEL', JOB .. id, 'sha256')
  if voice ~= '' then redis.call('HSET', JOB .. id, 'shared_voice', voice) end
  if is_named(voice) then redis.call('HSET', voice_key(voice), 'recording', recording) end
  redis.call('RPUSH', TIMELINE .. id, cjson.encode({
    at = now, state = job.state, stage = job.stage, reason = reason, attempt = tonumber(job.attempt or 0) }))
  add_event(id, job.batch, job.state, job.stage, reason)
  return 1
end

local results = {}
for a = 4, #ARGV, 4 do results[#results + 1] = correct(unpack(ARGV, a, a + 3)) end
return results
