-- erase_jobs: delete settled jobs with all that only they need, and their voices. Others are marked, and erased later.
-- KEYS  root
-- ARGV  now, the secret of tombstones to use if there is none, then ids
-- RETURNS  for each id 1 = erased, 2 = marked, 0 = no such job
local now = ARGV[1]
redis.call('HSETNX', key('tombstones'), 'secret', ARGV[2])
redis.call('DEL', key('admit_stops')) -- may name a batch
local secret = redis.call('HGET', key('tombstones'), 'secret')

local outcomes = {}
for a = 3, #ARGV do
  local id = ARGV[a]
  local job = read_fields('job:' .. id, { 'spec', 'archive', 'callback', 'sha256', unpack(RECORD_FIELDS) })
  if job.state and not FINAL[job.state] then
    redis.call('ZADD', key('erasing'), 'NX', now, id)
  else
    local recording = job.state and erase_job(id, job, secret, now)
    forget_id(id, job.batch, recording, secret, now)
  end
  outcomes[#outcomes + 1] = not job.state and 0 or FINAL[job.state] and 1 or 2
end
return outcomes
