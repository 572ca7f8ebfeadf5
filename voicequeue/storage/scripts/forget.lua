-- forget: a persona is not taken any more for one of the voices that it is known by.
-- KEYS  root
-- ARGV  voice, persona
-- RETURNS  1 = it was there, 0 = it was not
if redis.call('HGET', voice_key(ARGV[1]), 'persona_id') ~= ARGV[2] then return 0 end
redis.call('HDEL', voice_key(ARGV[1]), 'persona_id', 'name', 'job', 'at', 'audio_url')
redis.call('ZREM', key('voices'), ARGV[1])
return 1
