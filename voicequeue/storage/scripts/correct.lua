-- correct: add to counters, but not if somebody has corrected any since they were compared: it would count twice.
-- KEYS  root
-- ARGV  how often counters had been corrected then; then for each: counters, field, amount
-- RETURNS  1 = done, 0 = somebody was faster
if (redis.call('HGET', key('counters'), 'corrections') or '0') ~= ARGV[1] then return 0 end
redis.call('HINCRBY', key('counters'), 'corrections', 1)

local function add(counters, field, amount)
  local written = redis.call('HGET', key(counters), field)
  if written and not written:match('^-?%d+$') then redis.call('HDEL', key(counters), field) end -- counts nothing
  redis.call('HINCRBY', key(counters), field, amount)
  -- What was spent by then stands in them too, wrongly: rather nothing is told of an unsure charge than that.
  if field == 'corrected.credits' then redis.call('DEL', key('balances')) end
end

for a = 2, #ARGV, 3 do
  local batch = ARGV[a]:match('^batch:(.*)$')
  local has_ended = batch and redis.call('EXISTS', key(ARGV[a]), key(ARGV[a] .. ':jobs')) == 0
  if not has_ended then add(ARGV[a], ARGV[a + 1], ARGV[a + 2]) end
end
return 1
