-- repair_budget_list: list each owner that has a budget, and no other.
-- KEYS  root
-- ARGV  owners
-- RETURNS  for each 1 = repaired, 0 = the list was right
local repaired = {}
for a, owner in ipairs(ARGV) do repaired[a] = list_budget(owner) end
return repaired
