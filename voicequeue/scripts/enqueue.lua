-- enqueue: write many new jobs at once; a job that is there already is left as it is.
-- KEYS  root
-- ARGV  now, then for each job: id, spec (canonical JSON), rank, batch ('' = none), stage, next stage ('' = none),
--       seconds in which it must begin ('' = any)
-- RETURNS  for each job 1 = new, 0 = known (same content), -1 = the id stands for other content
local FIELDS = 7
local now = tonumber(ARGV[1])
local outcomes, count, came, lines = {}, 0, {}, {}

local function record(id, created, rank, batch, stage, next_stage)
  local fields = { 'state', 'queued', 'stage', stage, 'v', 1, 'rank', rank, 'created', created }
  if batch ~= '' then fields[11] = 'batch'; fields[12] = batch end
  if next_stage ~= '' then fields[#fields + 1] = 'next'; fields[#fields + 1] = next_stage end
  redis.call('HSET', key('job:' .. id), unpack(fields))
end

for a = 2, #ARGV, FIELDS do
  local id, spec, rank, batch, stage, next_stage, within = unpack(ARGV, a, a + FIELDS - 1)
  if redis.call('HSETNX', key('job:' .. id), 'spec', spec) == 1 then
    local at = now + count * 1e-6 -- a little apart: jobs of one call keep their order
    local created = string.format('%.6f', at)
    record(id, created, rank, batch, stage, next_stage)
    add(lines, rank .. ':' .. batch, line_score(stage, tonumber(created)), id)
    add(came, batch, created, id)
    if within ~= '' then redis.call('ZADD', key('expiry'), at + within, id) end
    count = count + 1
    outcomes[#outcomes + 1] = 1
  else
    outcomes[#outcomes + 1] = redis.call('HGET', key('job:' .. id), 'spec') == spec and 0 or -1
  end
end

for _, line in ipairs(lines) do
  redis.call('ZADD', key('line:' .. line), unpack(lines[line]))
  to_the_back(line:sub(1, 1), line:sub(3), 'NX')
end
for _, batch in ipairs(came) do
  local members = came[batch]
  if batch ~= '' then
    redis.call('ZADD', key('batch:' .. batch .. ':jobs'), unpack(members))
    redis.call('ZADD', key('batches'), 'NX', now, batch)
    redis.call('HINCRBY', key('batch:' .. batch), 'queued', #members / 2)
  end
  announce('', batch, 'queued', '', #members / 2 .. ' enqueued')
end
if count > 0 then wake() end
return outcomes
