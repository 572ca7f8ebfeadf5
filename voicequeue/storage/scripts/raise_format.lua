-- raise_format: raise the format of a queue, never lower it.
-- KEYS  root, and that of the audit log if the change is recorded there
-- ARGV  version, oldest reader
-- RETURNS  1 = raised, 0 = the queue has this format, or a newer one
local stored = redis.call('HMGET', key('format'), 'version', 'oldest_reader')
local version = math.max(tonumber(stored[1] or 1), tonumber(ARGV[1]))
local oldest_reader = math.max(tonumber(stored[2] or 1), tonumber(ARGV[2]))
redis.call('HSET', key('format'), 'version', version, 'oldest_reader', oldest_reader)
return (version > tonumber(stored[1] or 1) or oldest_reader > tonumber(stored[2] or 1)) and 1 or 0
