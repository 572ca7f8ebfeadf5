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

-- book: count an order of a job, whose record `job` is, by its attempt; one that was lost, and given up or sent again, is
-- unsettled no longer. Returns the fields orders and credits as they are then; nil where it was counted before.
local function book(job, order, now)
  local orders, attempt = cjson.decode(job.orders or '{}'), tostring(order.attempt)
  if orders[attempt] then return nil end
  orders[attempt] = order.task_id or ''
  if cjson.decode(job.lost or '{}')[attempt] then add_up('counters', 'unsettled', -order.credits) end
  spend(job.batch, order.stage, order.credits, now)
  return cjson.encode(orders), (job.credits or 0) + order.credits
end
