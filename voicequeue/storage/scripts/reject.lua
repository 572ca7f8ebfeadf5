-- reject: Keeps a message that became no job; the oldest ones go where there are too many, or too much of them.
-- KEYS    the root
-- ARGV    the message as a line of JSON, messages that are kept, bytes that they may have in all
-- RETURNS how many are kept
local line, most, most_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local list, size = key('rejects'), key('rejects:bytes')
local kept, bytes = redis.call('LPUSH', list, line), #line
if kept > 1 then
  local before = tonumber(redis.call('GET', size))
  if before then
    bytes = bytes + before
  else -- they are of a release that did not count
    for _, each in ipairs(redis.call('LRANGE', list, 1, -1)) do bytes = bytes + #each end
  end
end
while kept > 1 and (kept > most or bytes > most_bytes) do
  bytes, kept = bytes - #redis.call('RPOP', list), kept - 1
end
redis.call('SET', size, bytes)
return kept
