-- withdraw: mark jobs that are charging or unsure as to be cancelled: no further stage is ordered for them.
-- KEYS  root
-- ARGV  now, then id and version, id, version, …
-- RETURNS  for each 1 = it is marked, 0 = it has moved on since
local marked = {}
for a = 2, #ARGV, 2 do marked[#marked + 1] = withdraw(ARGV[a], ARGV[a + 1], ARGV[1]) end
return marked
