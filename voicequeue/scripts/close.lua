-- close: hold charges back, for one reason more.
-- KEYS  root
-- ARGV  now, reason, detail, until ('' = till somebody, or the account, opens it)
-- RETURNS  1 = it was not closed for this reason before, 0 = it was
return close_gate(ARGV[2], ARGV[1], ARGV[3], ARGV[4] ~= '' and ARGV[4] or nil) and 0 or 1
