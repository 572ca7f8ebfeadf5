-- apply: write moves that Python decided on, each if its job still stands at the version it was decided for.
-- KEYS  root
-- ARGV  now, JSON list of moves, then the limits. A move is {id, v, to, stage, due, reason, set = {field: value}, unset = [field], credits, task_id,
--       archive = its songs are to be archived}
-- RETURNS  for each move 1 = written, 0 = the job had moved on
local now, limits = ARGV[1], limits_from(3)
local written = {}

local function spend(id, batch, stage, credits)
  redis.call('HINCRBY', key('job:' .. id), 'credits', credits)
  redis.call('HINCRBY', key('counters'), stage .. '.charges', 1)
  redis.call('HINCRBY', key('counters'), stage .. '.credits', credits)
  redis.call('HINCRBY', key('counters'), 'day.' .. math.floor(now / 86400), credits)
  if redis.call('EXISTS', key('account')) == 1 then redis.call('HINCRBY', key('account'), 'credits', -credits) end
  if batch then redis.call('HINCRBY', key('batch:' .. batch), 'credits', credits) end
end

for i, m in ipairs(cjson.decode(ARGV[2])) do
  local job_key = key('job:' .. m.id)
  local job = redis.call('HMGET', job_key, 'v', 'state', 'failure', 'shares')
  local shares = m.stage == 'voice' and job[4]
  written[i] = 0
  if job[1] == tostring(m.v) then
    for field, value in pairs(m.set) do redis.call('HSET', job_key, field, value) end
    for _, field in ipairs(m.unset) do redis.call('HDEL', job_key, field) end
    -- A job that is retried waits where another makes the voice by now.
    if shares and m.to == 'queued' and FINAL[job[2]] and not makes(shares, m.id) then m.to = 'waiting' end
    local batch = move(m.id, m, now)
    count_failure(job[3], -1)
    count_failure(redis.call('HGET', job_key, 'failure'), 1)
    if m.credits > 0 then spend(m.id, batch, m.stage, m.credits) end
    if m.archive then to_be_archived(m.id, now) end
    if m.set.persona_id then
      voice_made(m.id, now)
    elseif shares then
      voice_follows(m.id, shares, m, now)
    end
    if m.credits > 0 and job[2] == 'charging' then proven(now) grow(limits, now) end
    written[i] = 1
  end
end
return written
