-- Budgets: what the owners of a job may spend and have in flight. Its owners are the account, its batch, its namespace, and
-- the API key that enqueued it. Each has counters of the same shape.

local function day_of(at) return math.floor(at / 86400) end

-- Return the counters of credits spent on a day (its number since 1970, in UTC) and in its month.
local month_fields = {}
local function spent_fields(day)
  if not month_fields[day] then
    -- The civil date from the number of days, in years that begin in March; eras have 400 years.
    local days = day + 719468
    local era = math.floor(days / 146097)
    local day_of_era = days - era * 146097
    local year = math.floor((day_of_era - math.floor(day_of_era / 1460) + math.floor(day_of_era / 36524)
      - math.floor(day_of_era / 146096)) / 365)
    local day_of_year = day_of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
    local month = math.floor((5 * day_of_year + 2) / 153) + 3
    if month > 12 then year, month = year + 1, month - 12 end
    month_fields[day] = string.format('month.%04d%02d', year + era * 400, month)
  end
  return 'day.' .. day, month_fields[day]
end

-- Count credits as spent on a day: for the account, the batch, the namespace and the API key of a job.
local function add_to_periods(job, credits, day)
  local day_field, month_field = spent_fields(day)
  for _, counters in ipairs({ 'counters', unpack(owners_of(job)) }) do
    add_to_counter(counters, day_field, credits)
    add_to_counter(counters, month_field, credits)
  end
end

-- Return what the jobs of an owner use, read again after it has changed: slots; credits that upstream may still charge, of
-- jobs in flight, of unsure and of lost orders; credits spent in all (not of the account), today and this month, with what
-- lost orders of removed jobs may have spent then.
local USED = { 'admitted', 'charging', 'pending', 'in_flight', 'reserved', 'unsettled', 'purged.unsettled', 'credits',
  'lost.credits' }
local function usage_of(owner, now)
  local counters = owner == 'account' and 'counters' or owner:gsub('/', ':', 1)
  if usages[counters] then return usages[counters] end
  flush_counters()
  local day, month = spent_fields(day_of(now))
  local used = redis.call('HMGET', key(counters), day, month, 'lost.' .. day, 'lost.' .. month, unpack(USED))
  local function n(i) return tonumber(used[i] or 0) end
  usages[counters] = { day = n(1) + n(3), month = n(2) + n(4), in_flight = n(5) + n(6) + n(7) + n(8),
    reserved = n(9) + n(10) - n(11), credits = n(12) + n(13) }
  return usages[counters]
end

-- The limits of credits: their name and how they are reported.
local CREDIT_LIMITS = {
  { 'credits', 'batch_credits', 'the credit limit of %s is reached' },
  { 'day', 'budget_day', "today's budget of %s is reached" },
  { 'month', 'budget_month', "this month's budget of %s is reached" },
}
local OWNERS = { account = 'the account', batch = 'the batch', namespace = 'the namespace', key = 'the API key' }

-- Append the limits (in_flight, credits, day, month) of an owner that do not allow this many more slots and credits to a
-- list of holds. `resets` is true if the next period allows the cost, unless these credits stay reserved.
local function add_holds_of_limits(holds, owner, limits, slots, cost, now)
  local usage, kind = usage_of(owner, now), owner:match('^[^/]*')
  local function add(reason, text, resets)
    holds[#holds + 1] = { reason = reason, owner = owner, resets = resets or false, text = text:format(OWNERS[kind]) }
  end
  if limits.in_flight and usage.in_flight + slots > limits.in_flight then
    add(kind == 'batch' and 'batch_in_flight' or 'budget_in_flight', '%s has no free slot')
  end
  for _, limit in ipairs(CREDIT_LIMITS) do
    local field, reason, text = unpack(limit)
    local claimed = usage.reserved + cost
    if limits[field] and usage[field] + claimed > limits[field] then
      add(reason, text, field ~= 'credits' and claimed <= limits[field])
    end
  end
end

local function add_holds(holds, owner, limits, slots, cost, now)
  if next(limits) then add_holds_of_limits(holds, owner, limits, slots, cost, now) end
end

-- Return the settings of a batch, read once by each script.
local batch_settings = {}
local function settings_of(batch)
  batch_settings[batch] = batch_settings[batch]
    or redis.call('HMGET', key('batch:' .. batch), 'paused', 'max_in_flight', 'max_credits', 'stopped')
  return batch_settings[batch]
end

local function add_holds_of_batch(holds, set, batch, slots, cost, now)
  local owner = 'batch/' .. batch
  local function add(reason, text)
    holds[#holds + 1] = { reason = reason, owner = owner, resets = false, text = text }
  end
  if tonumber(set[1] or 0) ~= 0 then add('batch_paused', 'the batch is paused') end
  if set[4] then add('batch_stopped', 'the batch is stopped, because too many of its jobs failed') end
  add_holds(holds, owner, { in_flight = tonumber(set[2] or nil), credits = tonumber(set[3] or nil) }, slots, cost, now)
end

local function add_batch_holds(holds, batch, slots, cost, now)
  local set = is_batch(batch) and settings_of(batch) or {}
  if set[1] or set[2] or set[3] or set[4] then add_holds_of_batch(holds, set, batch, slots, cost, now) end
end

-- Return the budget of an owner, read once by each script.
local budgets = {}
local function budget_of(owner)
  if not budgets[owner] then
    local set = redis.call('HMGET', key('budget:' .. owner), 'day', 'month', 'max_in_flight', 'hard')
    budgets[owner] = { day = tonumber(set[1] or nil), month = tonumber(set[2] or nil), in_flight = tonumber(set[3] or nil),
      is_hard = set[4] == '1' or nil }
  end
  return budgets[owner]
end

-- Return the limits of an owner that do not allow this many more slots and credits.
local function owner_holds(owner, slots, cost, now)
  local holds = {}
  add_holds(holds, owner, budget_of(owner), slots, cost, now)
  return holds
end

-- Return those of a lane: of its batch, of the account and of its namespace.
local function lane_holds(batch, slots, cost, now)
  local holds = {}
  add_batch_holds(holds, batch, slots, cost, now)
  local namespace = 'namespace/' .. namespace_of(batch)
  add_holds(holds, 'account', budget_of('account'), slots, cost, now)
  add_holds(holds, namespace, budget_of(namespace), slots, cost, now)
  return holds
end

-- Return those of the API key that enqueued a job.
local function key_holds(source, slots, cost, now)
  local name = api_key_of(source)
  return name and owner_holds('key/' .. name, slots, cost, now) or {}
end

-- Return those of all owners of a job.
local function limit_holds(job, slots, cost, now)
  local holds = lane_holds(job.batch, slots, cost, now)
  for _, hold in ipairs(key_holds(job.source, slots, cost, now)) do holds[#holds + 1] = hold end
  return holds
end

-- Return the first day of which the counters of all owners are complete: in a new queue from its first job on (0), in one
-- of an earlier release from a repair on; nil before.
local function counted_from()
  local counters = redis.call('HMGET', key('counters'), 'days_from', 'lane_turn')
  if not (counters[1] or counters[2]) then redis.call('HSET', key('counters'), 'days_from', 0) end
  return counters[1] and tonumber(counters[1]) or (not counters[2] and 0 or nil)
end

-- Count what a job that is removed has spent, so that the audit knows it of the days that are kept.
local function add_to_purged_days(job, by_day)
  local first = next(by_day) and counted_from() or 0
  for day, credits in pairs(by_day) do
    for _, counters in ipairs(day >= first and { 'counters', unpack(owners_of(job)) } or {}) do
      add_to_counter(counters, 'purged.day.' .. day, credits)
    end
  end
end

-- Keep the cost of lost orders of a job that is removed, by day, in the budgets of its owners.
local function add_lost_of_removed(job, by_day)
  for day, credits in pairs(by_day) do
    local day_field, month_field = spent_fields(day)
    for _, counters in ipairs({ 'counters', unpack(spenders_of(job)) }) do
      add_to_counter(counters, 'lost.' .. day_field, credits)
      add_to_counter(counters, 'lost.' .. month_field, credits)
    end
  end
end

-- List the namespace and the API key of a new job; each once by each script.
local is_listed = {}
local function list_owner(owner, now)
  if is_listed[owner] then return end
  is_listed[owner] = true
  redis.call('ZADD', key('owners'), 'NX', now, owner)
end

local function list_owners(job, now)
  local name = api_key_of(job.source)
  list_owner('namespace/' .. namespace_of(job.batch), now)
  if name then list_owner('key/' .. name, now) end
end

-- List the owner if it has a budget, and remove it from the list otherwise. Returns 1 if that changed the list.
local function list_budget(owner)
  return redis.call(redis.call('EXISTS', key('budget:' .. owner)) == 1 and 'SADD' or 'SREM', key('budgets'), owner)
end
