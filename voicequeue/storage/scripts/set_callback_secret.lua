-- set_callback_secret: replace the encrypted callback secret of an API key if no other call did meanwhile.
-- KEYS  root
-- ARGV  name of the API key, expected record ('' = none, '*' = any), new record ('' = remove it)
-- RETURNS  1 = replaced, also by an earlier run of the same call; 0 = another record is stored, or there is none to remove
local name, expected, text = unpack(ARGV)
local stored = redis.call('HGET', key('callback_secrets'), name) or ''
if stored == text and text ~= '' then return 1 end
if stored == text or (expected ~= '*' and stored ~= expected) then return 0 end
if text == '' then redis.call('HDEL', key('callback_secrets'), name)
else redis.call('HSET', key('callback_secrets'), name, text) end
return 1
