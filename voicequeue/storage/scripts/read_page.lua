-- read_page: read a page of a sorted set.
-- KEYS  root
-- ARGV  the set, 1 = highest score first, score ('' = from the start) and member of the last entry of the previous
--       page, maximum number to return
-- RETURNS  member, score, member, score, …
return page_of(key(ARGV[1]), ARGV[2] == '1', ARGV[3], ARGV[4], tonumber(ARGV[5]))
