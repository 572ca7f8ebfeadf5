-- pop_rejected_messages: delete all rejected messages.
-- KEYS  root
-- ARGV  none
-- RETURNS  the messages, the newest first
local messages = redis.call('LRANGE', key('rejected_messages'), 0, -1)
redis.call('DEL', key('rejected_messages'), key('rejected_messages:bytes'))
return messages
