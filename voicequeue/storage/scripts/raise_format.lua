-- raise_format: raise the format of a queue, never lower it.
-- KEYS  root, and that of the audit log if the change is recorded there
-- ARGV  version, oldest reader
-- RETURNS  1 = raised, 0 = the queue has this format, or a newer one
local stored = redis.call('HMGET', key('format'), 'version', 'oldest_reader')
local before = { format_number(stored[1]) or 1, format_number(stored[2]) or 1 }
local after = { math.max(before[1], tonumber(ARGV[1])), math.max(before[2], tonumber(ARGV[2])) }
redis.call('HSET', key('format'), 'version', after[1], 'oldest_reader', after[2])
return (after[1] > before[1] or after[2] > before[2]) and 1 or 0
