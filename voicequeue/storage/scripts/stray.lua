-- stray: what is wrong with where callbacks stand, and mend it.
-- KEYS  root
-- ARGV  now, 1 = mend or 0 = only tell, then ids
-- RETURNS  for each what is wrong, '' = nothing
local now, mending = ARGV[1], ARGV[2] == '1'

local function drop(id)
  redis.call('DEL', key('callback:' .. id))
  redis.call('ZREM', key('callbacks:undelivered'), id)
  redis.call('ZREM', key('callbacks:pending'), id)
end

local function judge(id)
  local subject, seq = unpack(redis.call('HMGET', key('callback:' .. id), 'subject', 'seq'))
  local pending = redis.call('ZSCORE', key('callbacks:pending'), id)
  local given_up = redis.call('ZSCORE', key('callbacks:undelivered'), id)
  if not subject then
    if pending or given_up then return 'has no record', function() drop(id) end end
    return ''
  end
  if given_up and not pending then return '' end -- its job may have been purged, some time before it is
  if subject:sub(1, 4) == 'job:' and redis.call('EXISTS', key(subject)) == 0 then
    return 'tells of a job that is not there', function() drop(id) leave_callbacks(id, subject, now) end
  end
  local line = key('callbacks:of:' .. subject)
  local first = redis.call('ZRANGE', line, 0, 0)[1]
  if first and redis.call('EXISTS', key('callback:' .. first)) == 0 then
    return 'waits for one that is not there', function() leave_callbacks(first, subject, now) end
  end
  if not pending or not redis.call('ZSCORE', line, id) or (first == id and pending == 'inf') then
    return 'is not delivered by anybody', function() await(id, subject, seq, now) end
  end
  return ''
end

local wrong = {}
for a = 3, #ARGV do
  local what, mend_it = judge(ARGV[a])
  if mending and mend_it then mend_it() end
  wrong[#wrong + 1] = what
end
return wrong
