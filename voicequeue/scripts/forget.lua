-- forget: a voice that was made is not taken for any further job, by whatever it is known.
-- KEYS  root
-- ARGV  the voice by its URL
-- RETURNS  1 = it was there, 0 = it was not
local made = fields_of('voice:' .. ARGV[1], { 'persona_id', 'job' })
if not made.persona_id then return 0 end
local job = fields_of('job:' .. made.job, { 'sha256', 'shares' })
local voices = { ARGV[1] }
if job.sha256 then voices[#voices + 1] = 'sha256-' .. job.sha256 end
if job.shares then voices[#voices + 1] = job.shares end
for _, voice in ipairs(voices) do
  if redis.call('HGET', voice_key(voice), 'persona_id') == made.persona_id then
    redis.call('HDEL', voice_key(voice), 'persona_id', 'name', 'job', 'at', 'audio_url')
  end
end
return redis.call('ZREM', key('voices'), ARGV[1])
