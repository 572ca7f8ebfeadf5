-- read_holds: read why queued jobs are not admitted, as `admit` decides it: the limits of their owners, a rest after
-- a refusal or until their recording is checked again. The gate and its holds are read elsewhere. Changes nothing.
-- KEYS  root
-- ARGV  now, ids
-- RETURNS  for each id a list: reason, owner, until (Unix seconds; '' = unknown; 'reset' = the end of the period), …
local now, replies = tonumber(ARGV[1]), {}

local function add(reply, reason, owner, ends_at)
  for _, value in ipairs({ reason, owner, ends_at or '' }) do reply[#reply + 1] = value end
end

-- Add the time until which a job rests, by an index.
local function add_rest(reply, reason, id, index)
  local ends_at = redis.call('ZSCORE', key(index), id)
  if ends_at and tonumber(ends_at) > now then add(reply, reason, 'job/' .. id, ends_at) end
end

local function holds_of(id)
  local job, reply = read_fields('job:' .. id, { 'state', 'stage', 'next_stage', 'batch', 'source' }), {}
  if job.state ~= 'queued' then return reply end
  for _, hold in ipairs(limit_holds(job, 1, cost_from_stage(job.stage, job.next_stage), now)) do
    add(reply, hold.reason, hold.owner, hold.resets and 'reset')
  end
  add_rest(reply, 'refused', id, 'refused')
  add_rest(reply, 'recording', id, 'resting')
  return reply
end

for a = 2, #ARGV do replies[a - 1] = holds_of(ARGV[a]) end
return replies
