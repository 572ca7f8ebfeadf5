-- upstream_failure: record requests that upstream did not answer, or answered with an error that is not about their
-- task. An error for one task only concerns that task. Many consecutive requests without a response close the gate,
-- for longer each time.
-- KEYS  root
-- ARGV  now, first hold (seconds), longest hold; then for each request: its subject (an id; '' = concerns every
--       request), reason, detail, seconds that upstream asks to wait
-- RETURNS  for each 0 = it is the only one, 1 = there are others, 2 = a trial has started, 3 = submission is held
local CONSECUTIVE = 5
local now, pause, max_pause, effects = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), {}

local function record_failure(subject, reason, detail, wait)
  local is_shared = subject == '' or redis.call('SCARD', key('unanswered:' .. reason)) > 1
  if reason == 'upstream_down' then
    local failures = redis.call('HINCRBY', key('flow'), 'failures', 1)
    if is_shared and (failures >= CONSECUTIVE or current_hold(reason, now)) then
      return hold_with_backoff(reason, ARGV[1], detail, pause, max_pause) and 3 or 1
    end
  elseif is_shared and reason == 'cooldown' then
    return add_hold(reason, ARGV[1], detail, string.format('%.6f', now + wait)) and 1 or 3
  elseif is_shared then
    return start_trial(reason, ARGV[1], detail) and 2 or 1
  end
  return is_shared and 1 or 0
end

for a = 4, #ARGV, 4 do redis.call('SADD', key('unanswered:' .. ARGV[a + 1]), ARGV[a] == '' and 'any' or ARGV[a]) end
for a = 4, #ARGV, 4 do
  effects[#effects + 1] = record_failure(ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3])
end
return effects
