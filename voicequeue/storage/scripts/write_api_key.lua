-- write_api_key: create or change an API key with its budget. A name is given once; a revoked key keeps its record.
-- KEYS  root
-- ARGV  name, the record that is replaced ('' = there must be none), the record, then the fields of its budget, which the
--       record has, too: field, value ('' = no limit), field, value, …
-- RETURNS  1 = it is stored, 0 = another change came first
local name, before, after = ARGV[1], ARGV[2], ARGV[3]
local current = redis.call('HGET', key('api_keys'), name) or ''
if current == after then return 1 end -- the script runs again: its reply was lost
if current ~= before then return 0 end
redis.call('HSET', key('api_keys'), name, after)
-- A version does not occur twice, also after Redis has lost changes: a gateway may have read them.
local version = key('api_keys:version')
redis.call('SET', version, redis.sha1hex((redis.call('GET', version) or '') .. name .. after))
set_fields(key('budget:key/' .. name), ARGV, 4)
list_budget('key/' .. name)
return 1
