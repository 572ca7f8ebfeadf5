-- record_balance: record the balance that upstream reported. Credits spent during the request are subtracted: whether
-- the report includes them is unknown, and the next report will.
-- KEYS  root
-- ARGV  now, time of the request, credits left, credits known to be spent at the time of the request, then the limits
-- RETURNS  credits left by our count
local BALANCES_KEPT = 3000 -- two days, one a minute
local now, requested_at, credits, spent_before = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local spent = credits_spent()
-- What these orders cost may be subtracted twice: by upstream, and by us.
local uncertain = math.abs(spent - spent_before) + cost_of_state('charging')
local orders = redis.call('HMGET', key('counters'), 'voice.charges', 'music.charges', 'unsettled')
redis.call('RPUSH', key('balances'), cjson.encode({
  requested_at = requested_at, at = now, credits = credits, spent = spent, quiet = uncertain == 0,
  charging = cost_of_state('charging'), unsure = cost_of_state('unsure'), unsettled = tonumber(orders[3] or 0), voices = tonumber(orders[1] or 0),
  songs = tonumber(orders[2] or 0) }))
redis.call('LTRIM', key('balances'), -BALANCES_KEPT, -1)
local left = credits - (spent - spent_before)
redis.call('HSET', key('account'), 'credits', left, 'at', now, 'uncertain', uncertain)

-- An account that can pay again is tried with one job, and so is an API key that upstream accepts.
upstream_responded()
local function start_trial_if(reason, condition)
  local text = redis.call('HGET', key('gate'), reason)
  local hold = text and cjson.decode(text)
  if not hold or not condition(hold) then return end
  hold.ends_at = now
  write_hold(reason, hold)
end
start_trial_if('out_of_credits', function() return left - limits_from(5).floor >= PRICE.voice end)
start_trial_if('unauthorized', function(hold) return not hold.ends_at end)
wake_dispatcher()
return left
