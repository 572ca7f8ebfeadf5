-- balance: note what upstream says is left on the account. What was spent while it was asked is taken off:
-- whether its answer knew of that, nobody can tell, and the next answer will.
-- KEYS  root
-- ARGV  now, when it was asked, credits left, credits spent for certain when it was asked, then the limits
-- RETURNS  credits left by our count
local BALANCES_KEPT = 3000 -- two days, one a minute
local now, asked, credits, spent_before = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local spent = credits_spent()
local quiet = spent == spent_before and redis.call('ZCARD', key('state:charging')) == 0
redis.call('RPUSH', key('balances'), cjson.encode({
  asked = asked, at = now, credits = credits, spent = spent, quiet = quiet }))
redis.call('LTRIM', key('balances'), -BALANCES_KEPT, -1)
local left = credits - (spent - spent_before)
redis.call('HSET', key('account'), 'credits', left, 'at', now)

-- An account that can pay again is tried with one job.
local closed = redis.call('HGET', key('gate'), 'out_of_credits')
if closed and left - limits_from(5).floor >= PRICE.voice then
  closed = cjson.decode(closed)
  closed.till = now
  redis.call('HSET', key('gate'), 'out_of_credits', cjson.encode(closed))
end
wake()
return left
