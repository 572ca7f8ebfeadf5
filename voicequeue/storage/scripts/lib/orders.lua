-- Orders that upstream accepted: each is counted once, however often it is reported.

local has_balance

-- Count this number of orders of a stage, which were submitted on the same day, as spent.
local function count_spent(number, job, stage, credits, submission)
  if has_balance == nil then has_balance = redis.call('EXISTS', key('account')) == 1 end
  credits = credits * number
  add_to_counter('counters', stage .. '.charges', number)
  add_to_counter('counters', stage .. '.credits', credits)
  add_to_periods(job, credits, cjson.decode(submission)[1])
  if has_balance then add_to_counter('account', 'credits', -credits) end
  add_to_owners(job, 'credits', credits)
end

-- `submission` is the order's in the field `submissions`.
local function spend(job, stage, credits, submission)
  local kind = stage .. submission .. (job.batch or '') .. ':' .. (job.source or '')
  count_kind(kind, count_spent, job, stage, credits, submission)
end

-- Orders are kept as JSON objects by attempt, and usually have one or two members: their text is extended without being
-- decoded. A text that is a value has escaped quotes, so it cannot be mistaken for a name.
local function has_attempt(object, attempt) return object and object:find('"' .. attempt .. '":', 1, true) ~= nil end
local function with_attempt(object, attempt, value)
  local before = object and object ~= '{}' and object:sub(1, -2) .. ',' or '{'
  return before .. '"' .. attempt .. '":' .. value .. '}'
end

-- Return the field `submissions` of a job with another order: its cost counts for the day of its submission, whenever
-- upstream reports it.
local submission_texts = {} -- by credits: all orders of a call are submitted at the same time
local function with_submission(job, attempt, credits, now)
  submission_texts[credits] = submission_texts[credits] or '[' .. day_of(now) .. ',' .. credits .. ']'
  return with_attempt(job.submissions, attempt, submission_texts[credits])
end

-- Return by day the cost of those orders of a job that were charged.
local function credits_by_day(job)
  local orders, by_day = cjson.decode(job.orders or '{}'), {}
  for attempt, submission in pairs(cjson.decode(job.submissions or '{}')) do
    local day, credits = unpack(submission)
    if orders[attempt] then by_day[day] = (by_day[day] or 0) + credits end
  end
  return by_day
end

-- Count a lost order as unsettled when it is given up or resubmitted (credits > 0), and no longer when it is known to
-- be charged (< 0). Its batch, namespace and API key keep its cost reserved in between.
local function add_unsettled(job, credits)
  add_to_counter('counters', 'unsettled', credits)
  add_to_owners(job, 'reserved', credits)
end

-- Return the cost of a job's lost orders that were given up or resubmitted and that upstream has not reported since.
local function unsettled_credits(job)
  local orders, credits = cjson.decode(job.orders or '{}'), 0
  for attempt, stage in pairs(cjson.decode(job.lost_orders or '{}')) do
    if not orders[attempt] then credits = credits + PRICE[stage] end
  end
  return credits
end

-- Return by day the cost of those orders that were submitted on it; of an earlier release's the day is unknown.
local function unsettled_by_day(job)
  local orders, by_day = cjson.decode(job.orders or '{}'), {}
  local submissions = cjson.decode(job.submissions or '{}')
  for attempt in pairs(cjson.decode(job.lost_orders or '{}')) do
    local day, credits = unpack(not orders[attempt] and submissions[attempt] or {})
    if day then by_day[day] = (by_day[day] or 0) + credits end
  end
  return by_day
end

-- Count an order of a job, by its attempt. Returns the new fields `orders`, `credits` and `submissions`; nil if it was
-- counted before.
local function count_order(job, order, now)
  local attempt, credits = tostring(order.attempt), (job.credits or 0) + order.credits
  if has_attempt(job.orders, attempt) then return nil end
  if has_attempt(job.lost_orders, attempt) then add_unsettled(job, -order.credits) end
  local is_submitted = has_attempt(job.submissions, attempt) -- not by an earlier release
  local submissions = is_submitted and job.submissions or with_submission(job, attempt, order.credits, now)
  spend(job, order.stage, order.credits, submissions:match('"' .. attempt .. '":(%b[])'))
  return with_attempt(job.orders, attempt, cjson.encode(order.task_id or '')), credits, submissions
end
