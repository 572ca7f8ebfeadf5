-- claim: of these jobs, those of which upstream has the order and that are due to be asked about; and others of
-- their stage that are due as well, or soon, so that jobs which come one by one share their messages in time.
-- A second message for the same job finds it not due and does nothing, so messages never multiply.
-- KEYS  root
-- ARGV  now, stage, due (until when nobody else may claim them), until when others are due soon, the most of them, then ids
-- RETURNS  flat list: id, v, state, task_id, since, asked, next, model, clips, doubt, reorder, id, …
local now, stage, due, soon, most = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local ASKED = { pending = true, succeeded = true, failed = true, cancelled = true }
local FIELDS = 11
local claimed = {}

local function claim(id, by)
  local job = redis.call('HMGET', key('job:' .. id), 'stage', 'v', 'state', stage .. '.task', 'since', 'asked', 'next',
    'model', 'clips', 'doubt', 'reorder')
  local told = ASKED[job[3]] and due_key(job[3])
  local at = told and redis.call('ZSCORE', told, id)
  if at and tonumber(at) <= by and job[1] == stage and job[4] then
    redis.call('ZADD', told, due, id)
    local since = without_idle_time(id, job[3], now - at)
    if since then job[5], job[6] = since, '0' end
    claimed[#claimed + 1] = id
    for f = 2, FIELDS do claimed[#claimed + 1] = job[f] or '' end
  end
end

for a = 6, #ARGV do claim(ARGV[a], now) end
-- Others are of interest to those only who have work themselves; what is overdue for longer is the pulse's.
if #claimed > 0 and most > 0 then
  local since, full = now - (soon - now), #claimed + most * FIELDS
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('flight'), since, soon, 'LIMIT', 0, 4 * most)) do
    if #claimed < full then claim(id, soon) end
  end
end
return claimed
