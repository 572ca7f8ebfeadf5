-- repair_summaries: delete summaries that lack a job. Maintenance builds them again.
-- KEYS  root
-- ARGV  index, entry of its summaries, index, entry, …
-- RETURNS  for each 1 = deleted, 0 = it was deleted before
local deleted = {}
for a = 1, #ARGV, 2 do deleted[#deleted + 1] = delete_summary(ARGV[a], ARGV[a + 1]) end
return deleted
