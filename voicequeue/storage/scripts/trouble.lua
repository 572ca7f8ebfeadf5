-- trouble: calls that upstream did not answer, or refused in words that are not of the task they ask about. What it says
-- of one task alone is that task's. Without an answer many calls in a row close the gate, the next time for longer.
-- KEYS  root
-- ARGV  now, seconds to keep it closed at first, most; then for each: what was asked about (an id; '' = it holds for
--       whatever is asked), reason, detail, seconds that upstream asks for
-- RETURNS  for each 0 = it is the only one, 1 = others too; 2 = orders are on trial since, 3 = nothing is charged since
local IN_A_ROW = 5
local now, pause, most, news = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), {}

local function judge(about, reason, detail, wait)
  local agreed = about == '' or redis.call('SCARD', key('unanswered:' .. reason)) > 1
  if reason == 'upstream_down' then
    local failures = redis.call('HINCRBY', key('flow'), 'failures', 1)
    if agreed and (failures >= IN_A_ROW or hold_of(reason, now)) then
      return hold_back(reason, ARGV[1], detail, pause, most) and 3 or 1
    end
  elseif agreed and reason == 'cooldown' then
    return close_gate(reason, ARGV[1], detail, string.format('%.6f', now + wait)) and 1 or 3
  elseif agreed then
    return on_trial(reason, ARGV[1], detail) and 2 or 1
  end
  return agreed and 1 or 0
end

for a = 4, #ARGV, 4 do redis.call('SADD', key('unanswered:' .. ARGV[a + 1]), ARGV[a] == '' and 'any' or ARGV[a]) end
for a = 4, #ARGV, 4 do news[#news + 1] = judge(ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3]) end
return news
