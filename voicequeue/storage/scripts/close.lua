-- close: hold charges back, for one reason more.
-- KEYS  root
-- ARGV  now, reason, detail, until ('' = till somebody, or the account, opens it)
-- RETURNS  1 = it was not closed for this reason before, or somebody has mended the key and it is wrong again; else 0
local before = close_gate(ARGV[2], ARGV[1], ARGV[3], ARGV[4] ~= '' and ARGV[4] or nil)
local tried = before and before.till and tonumber(before.till) <= tonumber(ARGV[1])
return before and not (tried and ARGV[2] == 'unauthorized') and 0 or 1
