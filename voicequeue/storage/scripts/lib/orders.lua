-- Orders that upstream took: each is counted once, however often it is named.

local counts_down

local function spend(batch, stage, credits, now)
  if counts_down == nil then counts_down = redis.call('EXISTS', key('account')) == 1 end
  add_up('counters', stage .. '.charges', 1)
  add_up('counters', stage .. '.credits', credits)
  add_up('counters', 'day.' .. math.floor(now / 86400), credits)
  if counts_down then add_up('account', 'credits', -credits) end
  if batch then add_up('batch:' .. batch, 'credits', credits) end
end

-- Whether one of the orders of a job, as its record has them, is this task of upstream.
local function has_task(orders, task_id)
  for _, task in pairs(orders and cjson.decode(orders) or {}) do
    if task == task_id then return true end
  end
  return false
end

-- unsettle: a lost order is given up or sent again (credits > 0), or known to have been charged (< 0). Until then its batch
-- does not spend what it may have cost.
local function unsettle(batch, credits)
  add_up('counters', 'unsettled', credits)
  if batch then add_up('batch:' .. batch, 'committed', credits) end
end

-- What the lost orders of a job that were given up or sent again cost, if they were charged; those that upstream named since
-- are spent.
local function unsettled_of(job)
  local orders, credits = cjson.decode(job.orders or '{}'), 0
  for attempt, stage in pairs(cjson.decode(job.lost or '{}')) do
    if not orders[attempt] then credits = credits + PRICE[stage] end
  end
  return credits
end

-- book: count an order of a job, whose record `job` is, by its attempt; one that was lost, and given up or sent again, is
-- unsettled no longer. Returns the fields orders and credits as they are then; nil where it was counted before.
local function book(job, order, now)
  local orders, attempt = cjson.decode(job.orders or '{}'), tostring(order.attempt)
  if orders[attempt] then return nil end
  orders[attempt] = order.task_id or ''
  if cjson.decode(job.lost or '{}')[attempt] then unsettle(job.batch, -order.credits) end
  spend(job.batch, order.stage, order.credits, now)
  return cjson.encode(orders), (job.credits or 0) + order.credits
end
