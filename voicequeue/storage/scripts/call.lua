-- call: claim callbacks for one try each: those that are due, or were handed out.
-- KEYS  root
-- ARGV  now, due (until when nobody else may claim them), then ids
-- RETURNS  flat list: id, type, at, since, tries, subject, batch, data, what is asked for ('' = the job is gone), id, …
--          What is asked for is the job's content, of a batch its URL.
local now, due = tonumber(ARGV[1]), ARGV[2]
local claimed = {}
for a = 3, #ARGV do
  local id = ARGV[a]
  local at = redis.call('ZSCORE', key('callbacks:pending'), id)
  local handed_out = redis.call('ZREM', key('callbacks:out'), id) == 1
  if at and at ~= 'inf' and (handed_out or tonumber(at) <= now) then
    redis.call('ZADD', key('callbacks:pending'), due, id)
    local found = redis.call('HMGET', key('callback:' .. id), 'type', 'at', 'since', 'tries', 'subject', 'batch', 'data')
    local subject = found[5] or ''
    local asked = redis.call('HGET', key(subject), subject:sub(1, 4) == 'job:' and 'spec' or 'callback_url')
    claimed[#claimed + 1] = id
    for f = 1, 7 do claimed[#claimed + 1] = found[f] or '' end
    claimed[#claimed + 1] = asked or ''
  end
end
return claimed
