-- pop_rejected_messages: delete all rejected messages of namespaces.
-- KEYS  root
-- ARGV  names of namespaces
-- RETURNS  the messages, for each namespace the newest first: its name, a line break, the message
local messages = {}
for _, namespace in ipairs(ARGV) do
  local list = key(index_of('rejected_messages', namespace))
  for _, message in ipairs(redis.call('LRANGE', list, 0, -1)) do
    messages[#messages + 1] = namespace .. '\n' .. message
  end
  redis.call('DEL', list, key(index_of('rejected_messages:bytes', namespace)))
end
return messages
