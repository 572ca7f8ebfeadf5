-- report_budgets: report budgets that are used by a percentage, each limit and percentage once in a period.
-- KEYS  root
-- ARGV  now, then for each: owner, period, percent, end of the period, batch of its callbacks, what they report (JSON with `limit`)
-- RETURNS  for each 1 = it is new, and its callback is written if the owner has a URL; 0 = it was reported before
local FIELDS = 6
local now, reports, REPORTED_BUDGETS = ARGV[1], {}, key('budgets:reported')

local function forget_past_periods()
  local fields = redis.call('HGETALL', REPORTED_BUDGETS)
  for f = 1, #fields, 2 do
    local ends_at = tonumber(fields[f + 1]:match('^%d+'))
    if fields[f] ~= 'seq' and ends_at <= tonumber(now) then redis.call('HDEL', REPORTED_BUDGETS, fields[f]) end
  end
end

local function write_budget_callback(owner, batch, snapshot)
  local url, source = unpack(redis.call('HMGET', key('budget:' .. owner), 'callback_url', 'callback_source'))
  if not url then return end
  snapshot.source = source or ''
  local seq = redis.call('HINCRBY', REPORTED_BUDGETS, 'seq', 1)
  write_callback('budget-' .. redis.sha1hex(owner):sub(1, 16) .. '-' .. seq .. '-' .. math.floor(now),
    { subject = 'budget:' .. owner, seq = seq, type = 'budget.used', snapshot = snapshot, batch = batch }, now)
end

for a = 2, #ARGV, FIELDS do
  local owner, period, percent, ends_at, batch, text = unpack(ARGV, a, a + FIELDS - 1)
  local snapshot, field = cjson.decode(text), owner .. ' ' .. period
  local limit_text = string.format('%s %.0f ', ends_at, snapshot.limit)
  local before = redis.call('HGET', REPORTED_BUDGETS, field) or ''
  local reported = before:sub(1, #limit_text) == limit_text and tonumber(before:sub(#limit_text + 1)) or 0
  local is_new = tonumber(percent) > reported
  reports[#reports + 1] = is_new and 1 or 0
  if is_new then
    forget_past_periods()
    redis.call('HSET', REPORTED_BUDGETS, field, limit_text .. percent)
    write_budget_callback(owner, batch, snapshot)
  end
end
return reports
