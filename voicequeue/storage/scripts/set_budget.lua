-- set_budget: set fields of the budget of an owner, and list the owner while it has one.
-- KEYS  root
-- ARGV  owner, then field, value ('' = delete it), field, value, …
-- RETURNS  number of fields that changed
local changed = set_fields(key('budget:' .. ARGV[1]), ARGV, 2)
list_budget(ARGV[1])
return changed
