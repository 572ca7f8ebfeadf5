-- resume: remove pauses and rate limiting, start a trial for every other hold, and end the rest of refused jobs.
-- KEYS  root
-- ARGV  now, stage ('' = all)
-- RETURNS  1 = there was a hold or a resting job, 0 = there was none
local now, stage = ARGV[1], ARGV[2]
local changed = 0
local function remove(reason) changed = math.max(changed, redis.call('HDEL', key('gate'), reason)) end
wake_dispatcher()
if stage ~= '' then
  remove('paused.' .. stage)
  return changed
end
for _, reason in ipairs({ 'paused', 'paused.voice', 'paused.music', 'cooldown' }) do remove(reason) end
if redis.call('ZCOUNT', key('refused'), now, '+inf') > 0 then
  redis.call('ZUNIONSTORE', key('refused'), 1, key('refused'), 'WEIGHTS', 0)
  changed = 1
end
for reason in pairs(ENDS_WITH_TRIAL) do
  local text = redis.call('HGET', key('gate'), reason)
  if text then
    local hold = cjson.decode(text)
    hold.ends_at = now
    write_hold(reason, hold)
    changed = 1
  end
end
return changed
