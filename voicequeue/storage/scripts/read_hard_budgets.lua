-- read_hard_budgets: read what the hard budgets of a new job's owners leave for new jobs. Changes nothing.
-- KEYS  root
-- ARGV  now, batch ('' = none), source
-- RETURNS  flat list: owner, period, limit, remaining, …
local reply = {}
for _, budget in ipairs(hard_budgets_of(ARGV[2], ARGV[3], tonumber(ARGV[1]))) do
  for _, field in ipairs({ 'owner', 'period', 'limit', 'remaining' }) do reply[#reply + 1] = tostring(budget[field]) end
end
return reply
