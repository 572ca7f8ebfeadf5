-- unmade: voices that jobs wait for and that nobody makes; mended, the first of them does, or all go on as they ought.
-- KEYS  root
-- ARGV  now, 1 = mend or 0 = only tell, then voice, id of a job that waits for it, voice, …
-- RETURNS  for each 1 = nobody makes it, 0 = all is well
local now, mending = ARGV[1], ARGV[2] == '1'

local function is_made(voice, id)
  if redis.call('HGET', key('job:' .. id), 'state') ~= 'waiting' then return true end
  local known = fields_of('voice:' .. voice, { 'maker', 'persona_id', 'failure' })
  if not known.maker then
    return (known.persona_id or known.failure) and redis.call('SISMEMBER', key('voices:due'), voice) == 1
  end
  local maker = fields_of('job:' .. known.maker, { 'state', 'stage' })
  if not maker.state or maker.stage ~= 'voice' or maker.state == 'waiting' then return false end
  local paid = maker.state == 'cancelled' and redis.call('ZSCORE', key('late'), known.maker)
  return not FINAL[maker.state] or paid
end

local wrong = {}
for a = 3, #ARGV, 2 do
  local unmade = not is_made(ARGV[a], ARGV[a + 1])
  if unmade and mending then
    redis.call('HDEL', voice_key(ARGV[a]), 'maker')
    settle_waiting(ARGV[a], now)
  end
  wrong[#wrong + 1] = unmade and 1 or 0
end
return wrong
