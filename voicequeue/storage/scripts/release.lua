-- release: jobs that still wait for a voice of which it is decided what becomes of it.
-- KEYS  root
-- ARGV  now
-- RETURNS  how many were let go, or failed; there may be more
local count = 0
for _, voice in ipairs(redis.call('SRANDMEMBER', key('voices:due'), 4)) do
  count = count + settle_waiting(voice, ARGV[1])
end
return count
