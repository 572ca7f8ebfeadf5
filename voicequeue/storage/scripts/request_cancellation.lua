-- request_cancellation: mark charging or unsure jobs for cancellation: no further stage is submitted for them.
-- KEYS  root
-- ARGV  now, then id, version, id, version, …
-- RETURNS  for each 1 = marked, 0 = its version has changed
local marked = {}
for a = 2, #ARGV, 2 do marked[#marked + 1] = request_cancellation(ARGV[a], ARGV[a + 1], ARGV[1]) end
return marked
