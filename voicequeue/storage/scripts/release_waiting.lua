-- release_waiting: release or fail jobs that wait for a voice that was created or failed.
-- KEYS  root
-- ARGV  now
-- RETURNS  number of released or failed jobs; there may be more
local count = 0
for _, voice in ipairs(redis.call('SRANDMEMBER', key('voices:decided'), 4)) do
  count = count + settle_waiting(voice, ARGV[1])
end
return count
