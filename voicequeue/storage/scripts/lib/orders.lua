-- Orders that upstream accepted: each is counted once, however often it is reported.

local has_balance

local function spend(batch, stage, credits, now)
  if has_balance == nil then has_balance = redis.call('EXISTS', key('account')) == 1 end
  add_to_counter('counters', stage .. '.charges', 1)
  add_to_counter('counters', stage .. '.credits', credits)
  add_to_periods('counters', credits, now)
  if has_balance then add_to_counter('account', 'credits', -credits) end
  add_to_owners(batch, 'credits', credits)
  if namespace_of(batch) ~= '' then
    add_to_periods('namespace:' .. namespace_of(batch), credits, now)
  end
end

-- Return whether one of these orders (the field of a record) is this task of upstream.
local function has_task(orders, task_id)
  for _, task in pairs(orders and cjson.decode(orders) or {}) do
    if task == task_id then return true end
  end
  return false
end

-- Count a lost order as unsettled when it is given up or resubmitted (credits > 0), and no longer when it is known to
-- be charged (< 0). Its batch and its namespace keep its cost reserved in between.
local function add_unsettled(batch, credits)
  add_to_counter('counters', 'unsettled', credits)
  add_to_owners(batch, 'reserved', credits)
end

-- Return the cost of a job's lost orders that were given up or resubmitted and that upstream has not reported since.
local function unsettled_credits(job)
  local orders, credits = cjson.decode(job.orders or '{}'), 0
  for attempt, stage in pairs(cjson.decode(job.lost_orders or '{}')) do
    if not orders[attempt] then credits = credits + PRICE[stage] end
  end
  return credits
end

-- Count an order of a job, by its attempt. Returns the new fields `orders` and `credits`; nil if it was counted before.
local function count_order(job, order, now)
  local orders, attempt = cjson.decode(job.orders or '{}'), tostring(order.attempt)
  if orders[attempt] then return nil end
  orders[attempt] = order.task_id or ''
  if cjson.decode(job.lost_orders or '{}')[attempt] then add_unsettled(job.batch, -order.credits) end
  spend(job.batch, order.stage, order.credits, now)
  return cjson.encode(orders), (job.credits or 0) + order.credits
end
