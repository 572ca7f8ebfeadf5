-- walk: a page of a sorted set.
-- KEYS  root
-- ARGV  the set, 1 = highest score first, score ('' = from the beginning) and member that came last, most to give
-- RETURNS  member, score, member, score, …
return page_of(key(ARGV[1]), ARGV[2] == '1', ARGV[3], ARGV[4], tonumber(ARGV[5]))
