-- forget_days: delete counters of what owners spent on days that are no longer kept; months are kept.
-- KEYS  root
-- ARGV  number of the first day to keep (since 1970), position of the first owner in `owners`, maximum number of owners
-- RETURNS  number of owners
local first, position = tonumber(ARGV[1]), tonumber(ARGV[2])
local MISSED_MAX = 60 -- days since the last call
local from = counted_from()
-- The audit compares later days only.
if from and from < first then redis.call('HSET', key('counters'), 'days_from', first) end

local fields = {}
for day = first - MISSED_MAX, first - 1 do
  for _, field in ipairs({ 'day.', 'purged.day.', 'lost.day.' }) do fields[#fields + 1] = field .. day end
end
local owners = redis.call('ZRANGE', key('owners'), position, position + ARGV[3] - 1)
if position == 0 then redis.call('HDEL', key('counters'), unpack(fields)) end
for _, owner in ipairs(owners) do redis.call('HDEL', key((owner:gsub('/', ':', 1))), unpack(fields)) end
return #owners
