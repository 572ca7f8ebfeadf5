-- forget_persona: stop using a persona for one of its voices.
-- KEYS  root
-- ARGV  voice, persona
-- RETURNS  1 = removed, 0 = the voice has another persona, or none
if redis.call('HGET', voice_key(ARGV[1]), 'persona_id') ~= ARGV[2] then return 0 end
redis.call('HDEL', voice_key(ARGV[1]), 'persona_id', 'name', 'job', 'at', 'audio_url')
redis.call('ZREM', key(index_of('voices', namespace_of(ARGV[1]))), ARGV[1])
return 1
