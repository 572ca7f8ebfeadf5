-- set_fields: set fields of one hash that no index depends on. A change wakes a dispatcher, because a limit may have been
-- raised.
-- KEYS  root
-- ARGV  name of the hash, then field, value ('' = delete it), field, value, …
-- RETURNS  number of fields that changed
local name, changed = key(ARGV[1]), 0
for a = 2, #ARGV, 2 do
  local field, value = ARGV[a], ARGV[a + 1]
  if (redis.call('HGET', name, field) or '') ~= value then changed = changed + 1 end
  if value == '' then redis.call('HDEL', name, field) else redis.call('HSET', name, field, value) end
end
if changed > 0 then wake_dispatcher() end
return changed
