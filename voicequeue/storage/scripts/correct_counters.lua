-- correct_counters: add to counters, unless any was corrected since they were compared, which would correct them twice.
-- KEYS  root
-- ARGV  number of corrections at the time of the comparison; then for each: counters, field, amount
-- RETURNS  1 = corrected, 0 = another repair was faster
if (redis.call('HGET', key('counters'), 'corrections') or '0') ~= ARGV[1] then return 0 end
redis.call('HINCRBY', key('counters'), 'corrections', 1)

local function correct(counters, field, amount)
  local value = redis.call('HGET', key(counters), field)
  if value and not value:match('^-?%d+$') then redis.call('HDEL', key(counters), field) end -- not a number: counts as 0
  redis.call('HINCRBY', key(counters), field, amount)
  -- Balances contain the wrong amounts at their time; without them no statement on unsure charges is made.
  if field == 'corrected.credits' or (counters == 'counters' and field == 'unsettled') then redis.call('DEL', key('balances')) end
end

for a = 2, #ARGV, 3 do
  local batch = ARGV[a]:match('^batch:(.*)$')
  local has_ended_since = batch and redis.call('EXISTS', key(ARGV[a]), key(ARGV[a] .. ':jobs')) == 0
  if not has_ended_since then correct(ARGV[a], ARGV[a + 1], ARGV[a + 2]) end
end
return 1
