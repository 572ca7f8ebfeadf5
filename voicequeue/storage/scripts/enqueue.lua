-- enqueue: write new jobs; an existing job is left unchanged.
-- KEYS  root
-- ARGV  now, SHA-1 of the secret from which the ids were derived ('' = any), number of kinds of jobs; for each kind:
--       rank, batch ('' = none), stage, next stage ('' = none), seconds in which it must start ('' = no deadline), shared
--       voice ('' = none), voice by its URL, hash of the recording ('' = unknown), source, id of the Celery message ('' =
--       none); then for each job: id, spec (canonical JSON), its kind (counted from 0), row in the caller's file ('' =
--       unknown)
-- RETURNS  for each job 1 = new, 2 = new and uses or waits for the voice of another job, 0 = exists with the same
--          content, -1 = the id exists with other content, -2 = the name of the voice denotes another recording, -3 = the id or the
--          recording was erased, -4 = the queue requires a consent, and the job names none, {-5, owner, period, limit,
--          remaining, price} = a hard budget does not allow its price;
--          nil = the ids were derived from another secret, and nothing was written
local FIELDS, KINDS, now = 10, 4, tonumber(ARGV[1])
if not has_id_secret(ARGV[2]) then return nil end
local outcomes, count, by_batch, by_lane, by_kind, sharing = {}, 0, {}, {}, {}, {}

local first, written = KINDS + FIELDS * tonumber(ARGV[3]), {}
local stored_spec, is_erased, lacks_consent, over_budget = checks_of_new_jobs(first)

-- What the jobs of one kind have in common; most calls have one kind.
local kind, rank, batch, stage, next_stage, within, voice, url, sha256, source, message_id
for a = first, #ARGV, 4 do
  local id, spec, source_row = ARGV[a], ARGV[a + 1], ARGV[a + 3]
  if ARGV[a + 2] ~= kind then
    kind = ARGV[a + 2]
    local k = KINDS + FIELDS * tonumber(kind)
    rank, batch, stage, next_stage, within, voice, url, sha256, source, message_id = unpack(ARGV, k, k + FIELDS - 1)
  end
  local existing = written[id] or stored_spec(id)
  local is_same = existing and (existing == spec or was_enqueued_as(id, spec))
  local outcome = is_same and repeated(id, message_id) or not existing and is_erased(id, spec, batch, sha256) and -3
    or lacks_consent(spec) and -4 or voice ~= '' and is_other_recording(voice, url) and -2 or existing and -1
    or over_budget(kind, batch, source, stage, next_stage, voice, url, now) or 1
  outcomes[#outcomes + 1] = outcome
  if outcome == 1 then
    written[id] = spec
    -- Microseconds apart, so that jobs of one call keep their order.
    local created = count == 0 and ARGV[1] or string.format('%.6f', now + count * 1e-6)
    create_record(id, spec, created, rank, batch, stage, next_stage, voice, sha256, source, source_row, message_id)
    by_kind[kind] = by_kind[kind] or { batch = batch, source = source, queued = 0 }
    by_kind[kind].queued = by_kind[kind].queued + cost_from_stage(stage, next_stage ~= '' and next_stage)
    append_to(by_lane, rank .. ':' .. batch, lane_score(stage, created), id)
    append_to(by_batch, batch, created, id)
    if within ~= '' then redis.call('ZADD', key('start_by'), created + within, id) end
    if voice ~= '' then sharing[#sharing + 1] = { id = id, voice = voice, url = url, position = #outcomes } end
    count = count + 1
  end
end

add_to_backlog(by_lane, by_batch, by_kind, ARGV[1])
for _, job in ipairs(sharing) do outcomes[job.position] = share_voice(job, ARGV[1]) end
-- Jobs that failed may have brought a batch to its limit when it had nothing left to stop.
for _, batch in ipairs(by_batch) do if is_batch(batch) then stop_if_failing(batch, ARGV[1]) end end
if count > 0 then wake_dispatcher(count > #sharing) end
return outcomes
