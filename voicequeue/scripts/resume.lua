-- resume: what somebody paused goes on; what is held back for other reasons is tried.
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
for _, reason in ipairs({ 'paused', 'paused.voice', 'paused.music' }) do open(reason) end
for reason in pairs(TRIED) do
  if redis.call('HEXISTS', key('gate'), reason) == 1 then
    local entry = cjson.decode(redis.call('HGET', key('gate'), reason))
    entry.till = now
    redis.call('HSET', key('gate'), reason, cjson.encode(entry))
    held = 1
  end
end
return held
