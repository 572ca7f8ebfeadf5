-- repair_owners: list owners that have jobs.
-- KEYS  root
-- ARGV  now, names of owners
-- RETURNS  for each 1 = repaired, 0 = it was listed
local repaired = {}
for a = 2, #ARGV do repaired[a - 1] = redis.call('ZADD', key('owners'), 'NX', ARGV[1], ARGV[a]) end
return repaired
