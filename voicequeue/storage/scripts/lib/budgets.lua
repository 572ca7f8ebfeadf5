-- Budgets: the credits that the account or a namespace may spend in a day and in a month (UTC).

-- Return the counters of credits spent in the day and in the month of this time.
local function spent_fields(now)
  local days = math.floor(now / 86400)
  -- The civil date from the number of days, in years that begin in March; eras have 400 years.
  local day = days + 719468
  local era = math.floor(day / 146097)
  local day_of_era = day - era * 146097
  local year = math.floor((day_of_era - math.floor(day_of_era / 1460) + math.floor(day_of_era / 36524)
    - math.floor(day_of_era / 146096)) / 365)
  local day_of_year = day_of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * day_of_year + 2) / 153) + 3
  if month > 12 then year, month = year + 1, month - 12 end
  return 'day.' .. days, string.format('month.%04d%02d', year + era * 400, month)
end

-- Count credits as spent in the day and the month of this time.
local function add_to_periods(counters, credits, now)
  local day, month = spent_fields(now)
  add_to_counter(counters, day, credits)
  add_to_counter(counters, month, credits)
end

-- Return why the budget of an owner does not allow this cost; nil if it does. Credits of jobs in flight, of unsure and
-- of lost orders count as spent, because upstream may still charge them.
local budgets = {}
local function owner_budget_reason(owner, counters, cost, now)
  budgets[owner] = budgets[owner] or redis.call('HMGET', key('budget:' .. owner), 'day', 'month')
  local limits = budgets[owner]
  if not (limits[1] or limits[2]) then return nil end
  flush_counters()
  local day, month = spent_fields(now)
  local amounts = redis.call('HMGET', key(counters), day, month, 'reserved', 'unsettled')
  local function n(i) return tonumber(amounts[i] or 0) end
  local claimed = n(3) + n(4) + cost
  local name = owner == 'account' and 'the account' or 'the namespace'
  if limits[1] and n(1) + claimed > tonumber(limits[1]) then return "today's budget of " .. name .. ' is reached' end
  if limits[2] and n(2) + claimed > tonumber(limits[2]) then return "this month's budget of " .. name .. ' is reached' end
end

-- Return why the budgets of a job's owners do not allow this additional cost; nil if they do.
local function budget_reason(batch, cost, now)
  local namespace = namespace_of(batch)
  return owner_budget_reason('account', 'counters', cost, now)
    or namespace ~= '' and owner_budget_reason('namespace/' .. namespace, 'namespace:' .. namespace, cost, now) or nil
end

-- List the owner if it has a budget, and remove it from the list otherwise. Returns 1 if that changed the list.
local function list_budget(owner)
  return redis.call(redis.call('EXISTS', key('budget:' .. owner)) == 1 and 'SADD' or 'SREM', key('budgets'), owner)
end
