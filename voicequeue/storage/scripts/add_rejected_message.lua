-- add_rejected_message: store a rejected message; the oldest are deleted beyond a number of messages or bytes.
-- KEYS    root
-- ARGV    now, the message as a line of JSON, maximum number of messages, maximum number of bytes, its namespace
-- RETURNS number of stored messages
local now, line, max, max_bytes, namespace = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local list, size = key(index_of('rejected_messages', namespace)), key(index_of('rejected_messages:bytes', namespace))
if namespace ~= '' then redis.call('ZADD', key('namespaces'), 'NX', now, namespace) end
local count, bytes = redis.call('LPUSH', list, line), #line
if count > 1 then
  local before = tonumber(redis.call('GET', size))
  if before then
    bytes = bytes + before
  else -- written by a release that did not count bytes
    for _, stored in ipairs(redis.call('LRANGE', list, 1, -1)) do bytes = bytes + #stored end
  end
end
while count > 1 and (count > max or bytes > max_bytes) do
  bytes, count = bytes - #redis.call('RPOP', list), count - 1
end
redis.call('SET', size, bytes)
return count
