-- balance: note what upstream says is left on the account. What was spent while it was asked is taken off:
-- whether its answer knew of that, nobody can tell, and the next answer will.
-- KEYS  root
-- ARGV  now, when it was asked, credits left, credits spent for certain when it was asked
-- RETURNS  credits left by our count
local BALANCES_KEPT = 3000 -- two days, one a minute
local now, asked, credits, spent_before = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local spent = credits_spent()
local quiet = spent == spent_before and redis.call('ZCARD', key('state:charging')) == 0
redis.call('RPUSH', key('balances'), cjson.encode({
  asked = asked, at = now, credits = credits, spent = spent, quiet = quiet }))
redis.call('LTRIM', key('balances'), -BALANCES_KEPT, -1)
redis.call('HSET', key('account'), 'credits', credits - (spent - spent_before), 'at', now)
return credits - (spent - spent_before)
