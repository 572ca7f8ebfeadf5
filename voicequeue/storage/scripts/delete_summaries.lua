-- delete_summaries: delete all summaries of an index.
-- KEYS  root
-- ARGV  the index
-- RETURNS  nothing
delete_summaries(ARGV[1])
