-- resume: what somebody paused goes on, and after "slow down" too; what is held back for other reasons is tried, and so
-- are jobs that rest after a refusal.
-- KEYS  root
-- ARGV  now, stage ('' = all)
-- RETURNS  1 = something was held back, 0 = nothing was
local now, stage = ARGV[1], ARGV[2]
local held = 0
local function open(reason) held = math.max(held, redis.call('HDEL', key('gate'), reason)) end
wake()
if stage ~= '' then
  open('paused.' .. stage)
  return held
end
for _, reason in ipairs({ 'paused', 'paused.voice', 'paused.music', 'cooldown' }) do open(reason) end
if redis.call('ZCOUNT', key('refused'), now, '+inf') > 0 then
  redis.call('ZUNIONSTORE', key('refused'), 1, key('refused'), 'WEIGHTS', 0)
  held = 1
end
for reason in pairs(TRIED) do
  if redis.call('HEXISTS', key('gate'), reason) == 1 then
    local entry = cjson.decode(redis.call('HGET', key('gate'), reason))
    entry.till = now
    redis.call('HSET', key('gate'), reason, cjson.encode(entry))
    held = 1
  end
end
return held
