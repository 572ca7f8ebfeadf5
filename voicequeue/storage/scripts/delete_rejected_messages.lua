-- delete_rejected_messages: delete some rejected messages of a namespace.
-- KEYS  root
-- ARGV  the namespace, then the SHA-1 of each message
-- RETURNS  for each message 1 = deleted, 0 = there is none
local list, size = key(index_of('rejected_messages', ARGV[1])), key(index_of('rejected_messages:bytes', ARGV[1]))
local lines = {}
for _, line in ipairs(redis.call('LRANGE', list, 0, -1)) do lines[redis.sha1hex(line)] = line end

local results = {}
for a = 2, #ARGV do
  local line = lines[ARGV[a]]
  local count = line and redis.call('LREM', list, 1, line) or 0
  if count > 0 then redis.call('DECRBY', size, #line) end
  results[#results + 1] = count
end
return results
