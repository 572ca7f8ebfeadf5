-- Hard budgets: those over which no job is enqueued. What queued and waiting jobs will spend counts too.

local OVER_BUDGET = -5

-- Return the periods of the hard budget of an owner, read once by each script: period, limit, left.
local hard_limits = {}
local function hard_limits_of(owner, now)
  if hard_limits[owner] then return hard_limits[owner] end
  local budget, limits = budget_of(owner), {}
  hard_limits[owner] = limits
  if not budget.is_hard then return limits end
  local usage = usage_of(owner, now)
  local queued = redis.call('HGET', key(owner == 'account' and 'backlog' or (owner:gsub('/', ':', 1))), 'queued_credits')
  for _, period in ipairs({ 'day', 'month' }) do
    local limit = budget[period]
    local left = limit and limit - usage[period] - usage.reserved - tonumber(queued or 0)
    if limit then limits[#limits + 1] = { owner = owner, period = period, limit = limit, left = left } end
  end
  return limits
end

-- Return the hard budgets of the owners of a new job.
local function hard_budgets_of(batch, source, now)
  local budgets, api_key = {}, api_key_of(source)
  for _, owner in ipairs({ 'account', 'namespace/' .. namespace_of(batch), api_key and 'key/' .. api_key }) do
    for _, limit in ipairs(hard_limits_of(owner, now)) do budgets[#budgets + 1] = limit end
  end
  return budgets
end

-- Return what a new job will cost in addition to those before it: a voice is paid by the job that creates it.
local created_voices = {}
local function price_of(stage, next_stage, voice, url)
  local price = cost_from_stage(stage, next_stage ~= '' and next_stage)
  if voice == '' then return price end
  local record = redis.call('HMGET', voice_key(voice), 'persona_id', 'creator')
  local is_shared = created_voices[voice] or record[1] or record[2]
    or (not is_named(voice) and redis.call('HEXISTS', voice_key(url), 'persona_id') == 1)
  return is_shared and price - PRICE.voice or price
end

-- Return two functions, which call `price` only where there is a hard budget: one returns why a new job is not enqueued
-- ({-5, owner, period, limit, left, price}; nil: it is), the other takes its price from the budgets. Jobs of one `kind` have the
-- same owners.
local function budget_check(now)
  local by_kind = {}
  local function over_budget(kind, batch, source, price)
    by_kind[kind] = by_kind[kind] or hard_budgets_of(batch, source, now)
    local cost = by_kind[kind][1] and price()
    for _, budget in ipairs(by_kind[kind]) do
      if cost > budget.left then
        return { OVER_BUDGET, budget.owner, budget.period, budget.limit, math.max(0, budget.left), cost }
      end
    end
  end
  local function take(kind, voice, price)
    local cost = by_kind[kind][1] and price()
    for _, budget in ipairs(by_kind[kind]) do budget.left = budget.left - cost end
    if cost then created_voices[voice] = true end
  end
  return over_budget, take
end
