-- enqueue: write many new jobs at once; a job that is there already is left as it is.
-- KEYS  root
-- ARGV  now, then for each job: id, spec (canonical JSON), rank, batch ('' = none), stage, next stage ('' = none)
-- RETURNS  for each job 1 = new, 0 = known (same content), -1 = the id stands for other content
local FIELDS = 6
local now = tonumber(ARGV[1])
local outcomes, line, came = {}, {}, {}

local function record(id, created, rank, batch, stage, next_stage)
  local fields = { 'state', 'queued', 'stage', stage, 'v', 1, 'rank', rank, 'created', created }
  if batch ~= '' then fields[11] = 'batch'; fields[12] = batch end
  if next_stage ~= '' then fields[#fields + 1] = 'next'; fields[#fields + 1] = next_stage end
  redis.call('HSET', key('job:' .. id), unpack(fields))
end

local function line_up(id, at, created, rank, batch)
  line[#line + 1] = backlog_score(tonumber(rank), at)
  line[#line + 1] = id
  local members = came[batch] or {}
  members[#members + 1] = created
  members[#members + 1] = id
  came[batch] = members
end

for a = 2, #ARGV, FIELDS do
  local id, spec, rank, batch, stage, next_stage = unpack(ARGV, a, a + FIELDS - 1)
  if redis.call('HSETNX', key('job:' .. id), 'spec', spec) == 1 then
    local at = now + #line * 1e-6 -- a little apart: jobs of one call keep their order
    local created = string.format('%.6f', at)
    record(id, created, rank, batch, stage, next_stage)
    line_up(id, at, created, rank, batch)
    outcomes[#outcomes + 1] = 1
  else
    outcomes[#outcomes + 1] = redis.call('HGET', key('job:' .. id), 'spec') == spec and 0 or -1
  end
end

if #line > 0 then redis.call('ZADD', key('backlog'), unpack(line)) end
for batch, members in pairs(came) do
  local count = #members / 2
  if batch ~= '' then
    redis.call('ZADD', key('batch:' .. batch .. ':jobs'), unpack(members))
    redis.call('ZADD', key('batches'), 'NX', now, batch)
    redis.call('HINCRBY', key('batch:' .. batch), 'queued', count)
  end
  announce('', batch, 'queued', '', count .. ' enqueued')
end
return outcomes
