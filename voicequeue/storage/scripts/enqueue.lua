-- enqueue: write many new jobs at once; a job that is there already is left as it is.
-- KEYS  root
-- ARGV  now, how many kinds of jobs there are; for each kind: rank, batch ('' = none), stage, next stage ('' = none),
--       seconds in which it must begin ('' = any), voice that it shares ('' = none), voice by its URL,
--       hash of the recording ('' = not known), origin; then for each job: id, spec (canonical JSON), its kind (from 0 on)
-- RETURNS  for each job 1 = new, 2 = new and sings with a voice that is there or made by another, 0 = known (same
--          content), -1 = the id stands for other content, -2 = the voice's name stands for another recording
local FIELDS, KINDS = 9, 3
local now = tonumber(ARGV[1])
local outcomes, count, came, lines, shared = {}, 0, {}, {}, {}

local first = KINDS + FIELDS * tonumber(ARGV[2])
local known, written = specs_known(first), {}

for a = first, #ARGV, 3 do
  local id, spec, kind = ARGV[a], ARGV[a + 1], KINDS + FIELDS * tonumber(ARGV[a + 2])
  local rank, batch, stage, next_stage, within, shares, url, sha256, origin = unpack(ARGV, kind, kind + FIELDS - 1)
  local there = written[id] or known(id)
  local outcome = is_other_recording(shares, url) and -2 or there and (there == spec and 0 or -1) or 1
  outcomes[#outcomes + 1] = outcome
  if outcome == 1 then
    written[id] = spec
    local at = now + count * 1e-6 -- a little apart: jobs of one call keep their order
    local created = string.format('%.6f', at)
    new_record(id, spec, created, rank, batch, stage, next_stage, shares, sha256, origin)
    add(lines, rank .. ':' .. batch, line_score(stage, tonumber(created)), id)
    add(came, batch, created, id)
    if within ~= '' then redis.call('ZADD', key('expiry'), at + within, id) end
    if shares ~= '' then shared[#shared + 1] = { id = id, voice = shares, url = url, place = #outcomes } end
    count = count + 1
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
for _, job in ipairs(shared) do outcomes[job.place] = share(job, ARGV[1]) end
if count > 0 then wake() end
return outcomes
