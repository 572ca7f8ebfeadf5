-- Hard budgets: those over which no job is enqueued. What queued and waiting jobs will spend counts too.
local OVER_BUDGET = -5
local hard_limits, created_voices = {}, {}

-- Return the periods of the hard budget of an owner, with the credits that remain for new jobs; read once by each script.
local function hard_limits_of(owner, now)
  if hard_limits[owner] then return hard_limits[owner] end
  local budget, limits = budget_of(owner), {}
  hard_limits[owner] = limits
  if not budget.is_hard then return limits end
  local usage = usage_of(owner, now)
  local queued = redis.call('HGET', key(owner == 'account' and 'backlog' or (owner:gsub('/', ':', 1))), 'queued_credits')
  for _, period in ipairs({ 'day', 'month' }) do
    local limit = budget[period]
    local remaining = limit and limit - usage[period] - usage.reserved - tonumber(queued or 0)
    if limit then limits[#limits + 1] = { owner = owner, period = period, limit = limit, remaining = remaining } end
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
local function price_of(stage, next_stage, voice, url)
  local price = cost_from_stage(stage, next_stage ~= '' and next_stage)
  if voice == '' then return price end
  local record = redis.call('HMGET', voice_key(voice), 'persona_id', 'creator')
  local is_shared = created_voices[voice] or record[1] or record[2]
    or (not is_named(voice) and redis.call('HEXISTS', voice_key(url), 'persona_id') == 1)
  return is_shared and price - PRICE.voice or price
end

-- Take the price of a new job from these hard budgets. Returns nil, or, if one of them does not allow it, {OVER_BUDGET,
-- owner, period, limit, remaining, price}; the job is then not enqueued.
local function take_from(budgets, stage, next_stage, voice, url)
  local price = price_of(stage, next_stage, voice, url)
  for _, budget in ipairs(budgets) do
    if price > budget.remaining then
      if not created_voices[voice] then forget_unused_name(voice) end
      return { OVER_BUDGET, budget.owner, budget.period, budget.limit, math.max(0, budget.remaining), price }
    end
  end
  for _, budget in ipairs(budgets) do budget.remaining = budget.remaining - price end
  created_voices[voice] = true
end

-- Take the price of a new job from the hard budgets of its owners; jobs of one `kind` have the same.
local budgets_by_kind = {}
local function take_from_hard_budgets(kind, batch, source, stage, next_stage, voice, url, now)
  local budgets = budgets_by_kind[kind] or hard_budgets_of(batch, source, now)
  budgets_by_kind[kind] = budgets
  return budgets[1] and take_from(budgets, stage, next_stage, voice, url) or nil
end

-- Return the checks of the jobs in every fourth ARGV from `a` on: functions that return the stored spec of a job, and whether
-- it is erased, lacks a consent, or is over a hard budget.
local function needed_checks()
  local has_budgets = redis.call('EXISTS', key('budgets')) == 1
  local function stored_spec(id) return redis.call('HGET', JOB .. id, 'spec') end
  local function over_budget(...) return has_budgets and take_from_hard_budgets(...) end
  return stored_spec, erased_jobs(), consent_policy(), over_budget
end

-- Usually no job exists, and none is refused: one command shows that.
local function none() end
local function checks_of_new_jobs(a)
  local keys = { key('tombstones'), key('consent_required'), key('budgets') }
  for i = a, #ARGV, 4 do keys[#keys + 1] = JOB .. ARGV[i] end
  if redis.call('EXISTS', unpack(keys)) > 0 then return needed_checks() end
  return none, none, none, none
end
