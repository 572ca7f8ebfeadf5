-- check_callbacks: find, and optionally repair, callbacks that would never be delivered.
-- KEYS  root
-- ARGV  now, 1 = repair or 0 = only report, then ids
-- RETURNS  for each what is wrong, '' = nothing
local now, is_repairing = ARGV[1], ARGV[2] == '1'

local function drop(id)
  redis.call('DEL', key('callback:' .. id))
  redis.call('ZREM', key('callbacks:undelivered'), id)
  redis.call('ZREM', key('callbacks:pending'), id)
end

-- Return what is wrong and a function that repairs it.
local function check(id)
  local subject, seq = unpack(redis.call('HMGET', key('callback:' .. id), 'subject', 'seq'))
  local pending = redis.call('ZSCORE', key('callbacks:pending'), id)
  local given_up = redis.call('ZSCORE', key('callbacks:undelivered'), id)
  if not subject then
    if pending or given_up then return 'has no record', function() drop(id) end end
    return ''
  end
  if given_up and not pending then return '' end -- it is purged later than its job
  if subject:sub(1, 4) == 'job:' and redis.call('EXISTS', key(subject)) == 0 then
    return 'belongs to a job that does not exist', function() drop(id) remove_callback(id, subject, now) end
  end
  local siblings = key('callbacks:order:' .. subject)
  local first = redis.call('ZRANGE', siblings, 0, 0)[1]
  if first and redis.call('EXISTS', key('callback:' .. first)) == 0 then
    return 'waits for a callback that does not exist', function() remove_callback(first, subject, now) end
  end
  if not pending or not redis.call('ZSCORE', siblings, id) or (first == id and pending == 'inf') then
    return 'is not scheduled for delivery', function() add_callback(id, subject, seq, now) end
  end
  return ''
end

local problems = {}
for a = 3, #ARGV do
  local problem, repair = check(ARGV[a])
  if is_repairing and repair then repair() end
  problems[#problems + 1] = problem
end
return problems
