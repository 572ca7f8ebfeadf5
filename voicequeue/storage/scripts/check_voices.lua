-- check_voices: find voices that jobs wait for and that no job creates. A repair lets the first waiting job create
-- it, or applies the outcome of the voice to all of them.
-- KEYS  root
-- ARGV  now, 1 = repair or 0 = only report, then voice, id of a job that waits for it, voice, …
-- RETURNS  for each 1 = no job creates it, 0 = nothing is wrong
local now, is_repairing = ARGV[1], ARGV[2] == '1'

local function has_creator(voice, id)
  if redis.call('HGET', JOB .. id, 'state') ~= 'waiting' then return true end
  local record = read_fields('voice:' .. voice, { 'creator', 'persona_id', 'failure' })
  if not record.creator then
    return (record.persona_id or record.failure) and redis.call('SISMEMBER', key('voices:decided'), voice) == 1
  end
  local creator = read_fields('job:' .. record.creator, { 'state', 'stage' })
  if not creator.state or creator.stage ~= 'voice' or creator.state == 'waiting' then return false end
  local is_charged = creator.state == 'cancelled' and redis.call('ZSCORE', key('late_results'), record.creator)
  return not FINAL[creator.state] or is_charged
end

local problems = {}
for a = 3, #ARGV, 2 do
  local is_missing = not has_creator(ARGV[a], ARGV[a + 1])
  if is_missing and is_repairing then
    redis.call('HDEL', voice_key(ARGV[a]), 'creator')
    settle_waiting(ARGV[a], now)
  end
  problems[#problems + 1] = is_missing and 1 or 0
end
return problems
