-- close_gate: add a hold.
-- KEYS  root
-- ARGV  now, reason, detail, until ('' = until an operator, or a balance report, ends it)
-- RETURNS  1 = there was no hold with this reason, or a replaced API key is invalid again; else 0
local before = add_hold(ARGV[2], ARGV[1], ARGV[3], ARGV[4] ~= '' and ARGV[4] or nil)
local is_trial = before and has_ended(before, ARGV[1])
return before and not (is_trial and ARGV[2] == 'unauthorized') and 0 or 1
