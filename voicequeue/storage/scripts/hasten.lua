-- hasten: a voice whose maker may not begin (its batch is paused, or has spent its credits) is made by one who waits
-- for it and may.
-- KEYS  root
-- ARGV  now, how many of those who wait are looked at; the next call looks at those after them
-- RETURNS  how many make a voice from now on
local now, many = ARGV[1], tonumber(ARGV[2])
local from = tonumber(redis.call('HGET', key('flow'), 'looked') or 0)
local ids = redis.call('ZRANGE', key('state:waiting'), from, from + many - 1)
redis.call('HSET', key('flow'), 'looked', #ids < many and 0 or from + many)

local count = 0
for _, id in ipairs(ids) do
  local voice = redis.call('HGET', key('job:' .. id), 'shares')
  if voice and yields(voice, id, now) then
    move(id, { to = 'queued', stage = 'voice', reason = 'makes the voice, for who was to make it may not begin' }, now)
    count = count + 1
  end
end
return count
