-- balance: note what upstream says is left on the account. What was spent while it was asked is taken off:
-- whether its answer knew of that, nobody can tell, and the next answer will.
-- KEYS  root
-- ARGV  now, when it was asked, credits left, credits spent for certain when it was asked, then the limits
-- RETURNS  credits left by our count
local BALANCES_KEPT = 3000 -- two days, one a minute
local now, asked, credits, spent_before = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local spent = credits_spent()
local quiet = spent == spent_before and redis.call('ZCARD', key('state:charging')) == 0
local orders = redis.call('HMGET', key('counters'), 'voice.charges', 'music.charges', 'unsettled')
redis.call('RPUSH', key('balances'), cjson.encode({
  asked = asked, at = now, credits = credits, spent = spent, quiet = quiet, charging = credits_of('charging'),
  unsure = credits_of('unsure'), unsettled = tonumber(orders[3] or 0), voices = tonumber(orders[1] or 0),
  songs = tonumber(orders[2] or 0) }))
redis.call('LTRIM', key('balances'), -BALANCES_KEPT, -1)
local left = credits - (spent - spent_before)
redis.call('HSET', key('account'), 'credits', left, 'at', now)

-- An account that can pay again is tried with one job, and so is a key that upstream knows.
answered()
local function try(reason, is_tried)
  local closed = redis.call('HGET', key('gate'), reason)
  closed = closed and cjson.decode(closed)
  if not closed or not is_tried(closed) then return end
  closed.till = now
  redis.call('HSET', key('gate'), reason, cjson.encode(closed))
end
try('out_of_credits', function() return left - limits_from(5).floor >= PRICE.voice end)
try('unauthorized', function(closed) return not closed.till end)
wake()
return left
