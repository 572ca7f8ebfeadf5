-- Shared by every script: the key map, and what follows from a job's state.
--
-- KEYS[1] is the root, "{prefix}:". Every key begins with it, so all of them lie in one cluster slot:
--   job:<id>       hash    the record: spec, state, stage, v (version), rank, created, updated, batch, next,
--                          origin (through which door it came, and who brought it: voicequeue/domain/origin.py);
--                          later attempt, holder, since (when it was ordered, or later: see IDLE_S), asked (when it
--                          was not ready yet; 0 = not known), model, credits,
--                          lined (when it joined the line anew), refused (JSON, while upstream refuses its order in
--                          words that may be meant for every order: times, own, takes, at, words),
--                          cancelling (when its cancelling was asked for; while it is charging or unsure),
--                          shares (the id of the voice that it shares with others), sha256 (of the recording),
--                          voice.task, music.task (the order that is asked about), orders (JSON: upstream's task by
--                          attempt, of each order that was charged), lost (JSON: stage by attempt, of orders that may
--                          have been charged and were given up or sent again), doubt (JSON: since when upstream says that the order
--                          failed, in which words), reorder (to be ordered again when that is certain),
--                          answer (the beginning of what upstream answered to its last order, where that cannot be read),
--                          persona_id, voice_name, clips, failure, settled,
--                          callback (id of the last one that tells of it); archive (pending, done, failed), of one
--                          that is not done archive.since, archive.tries, archive.reason, archive.holder (while
--                          somebody is at it); archived.audio.<clip>, archived.image.<clip> (JSON: url, size, sha256)
--   timeline:<id>  list    every move as JSON: at, state, stage, reason, attempt, task_id
--   line:<rank>:<batch> zset  ids in state queued, of one priority and batch ('' = none); the head has the
--                          lowest score
--   turns:<rank>   zset    batches that have such a line; score = whose turn it is
--   state:<state>  zset    ids in any other state; score = when they entered it
--   refused        zset    ids whose record says `refused`; score = when the order may be sent again
--   refused:<reason> set   those of them that were refused for that reason since upstream last took an order
--   slowed         zset    ids that upstream said "slow down" of, for ten minutes; score = when
--   unanswered:<reason> set what was not answered, or refused, since upstream last answered a question: ids,
--                          `balance`, `any`
--   flight         zset    ids that hold a slot; score = when they next need somebody
--   late           zset    ids of jobs that are over and whose paid order may still deliver, or the rest of it; score = when
--                          to ask
--   voice:<voice>  hash    a voice by its recording (url-…, sha256-…) or its name in a batch (named-…): maker, the
--                          job that makes it; then persona_id, name, job (who made it), at, audio_url; failure
--                          (JSON) while jobs that waited for it are failed with it; of a named one recording, and
--                          jobs: how many share it
--   waiting:<voice> zset   ids that wait for it; score = when they came
--   voices         zset    voices by URL that are there; score = when they came
--   voices:due     set     voices that some still wait for although it is decided what becomes of them
--   expiry         zset    ids that must have begun by then, until they are over or seen to have begun
--   batches        zset    names of batches that have jobs; score = when the first one came
--   batch:<name>   hash    number of jobs by state; credits; committed: as in counters, and what its lost orders may
--                          have cost that were given up or sent again; purged.credits: what purged jobs are among
--                          those credits; what somebody set: max_credits, max_in_flight, paused, callback_url,
--                          callback_origin (who set that);
--                          settlings: how often its callback was written
--   batch:<name>:jobs zset its ids; score = when they came
--   counters       hash    <stage>.charges, <stage>.credits, day.<n>: for ever; corrected.credits, what repairs
--                          added to them; corrections, how often repairs corrected any counters; committed: credits
--                          that jobs in flight are still going to spend, and unsure ones may; unsettled: what lost
--                          orders cost, if they were charged, that were given up or sent again; failed.<code>: jobs
--                          that failed so; turn;
--                          callbacks.delivered, archive.files, archive.jobs: how many were archived; purged.<state>:
--                          how many were purged; purged.credits: what they had spent
--   stands         hash    <state>:<stage>: how many jobs stand there; those that are queued the lines tell
--   tally          hash    what processes count beside the records: call:<operation>:<outcome>, tries:<outcome>;
--                          <what>.le:<of>:<bound>, how often it took so long; <what>.sum:<of> (voicequeue/storage/monitoring/metrics.py)
--   account        hash    credits left by our count, at (when upstream said it last), short (JSON, while the
--                          next job cannot be paid), drift (JSON, while more has left it than was counted)
--   balances       list    JSON: what upstream said was left; what we had spent by then, and for how many orders of
--                          each stage; what orders cost that were under way, unsure, unsettled
--   gate           hash    by reason, JSON: since, detail, till, times
--   flow           hash    limit, ceiling, streak, patience, cut: how many jobs upstream lets us have in flight;
--                          tat: the submit rate; took: when upstream took an order last; takes.<stage>: how many it
--                          took; failures: calls in a row that upstream did not answer; looked: how many of those who wait for a voice this round has
--                          looked at
--   spans:<kind>   list    "over within": how long the last orders of a stage and model took
--   kinds          set     those kinds
--   schedules      hash    by kind, JSON: the ages at which to ask
--   settings       hash    the limits in the workers' settings, for whoever asks
--   limits         hash    what somebody set while it runs: in_flight, submit_rate, credit_floor
--   turn:<name>    string  whose turn it is to do something that one worker does for all
--   plan:<token>   list    what somebody may do at once: JSON of what and to how many, then "id version" for
--                          each job; gone after an hour
--   wake           list    an element, while there may be something to admit
--   told           string  the last of them that was logged
--   events         stream  every move: id, batch, state, stage, reason, took (seconds before it); enqueueing as one event a call and
--                          batch, without an id
--   purged         stream  jobs that are not kept any more: id, batch
--   callback:<id>  hash    what a caller is still to be told: subject (job:<id> or batch:<name>), seq (its order
--                          there), type, at, data (JSON: the record as it stood), batch; later tries, reason,
--                          since (when somebody wanted it delivered again). Gone when it is delivered
--   callbacks:of:<subject> zset ids that are pending; score = seq. Only the first is due, the others wait for it
--   callbacks:pending zset ids; score = when to try, +inf while they wait for an earlier one
--   callbacks:out  zset    ids that were handed out and not claimed yet; score = until when
--   callbacks:undelivered zset ids; score = when they were given up
--   archive:pending zset   ids whose songs are to be archived; score = when to try
--   archive:out    zset    ids that were handed out and not claimed yet; score = until when
--   archive:failed zset    ids whose songs were given up; score = when
--   rejects        list    JSON: messages that became no job: at, message_id, task, reason, job
--   rejects:bytes  string  how many bytes these have in all
--   pulses         zset    worker names; score = when each was last heard; callbacks:pulses, archive:pulses and
--                          gateway:pulses: of those who deliver callbacks, archive songs, are the gateway
--   pulses:facts   hash    by worker name, JSON: what it runs with; callbacks:pulses:facts, …
--   session:<id>   hash    a login to the job page, by the SHA-256 of its cookie: name of the API key, proof (SHA-256 of
--                          how that key was configured), since; gone after 12 hours
--   session:<id>:notice string what was done, for its next page; gone after a minute
--   sessions:<name> zset   sessions of the API key of that name; score = since
--   logins         zset    addresses from which logins failed; score = when the last one was tried
--   logins:tries   hash    by address: how many
--   celery:<name>          Celery's own, written by kombu alone: its queues (lists), unacked, bindings; channels too
-- Times are Unix seconds by Redis's clock, given by the caller (voicequeue/storage/connection/clock.py).
local root = KEYS[1]
local function key(name) return root .. name end

-- The fields that are there, by name.
local function fields_of(name, fields)
  local found, values = {}, redis.call('HMGET', key(name), unpack(fields))
  for i, field in ipairs(fields) do found[field] = values[i] or nil end
  return found
end

-- Counters that grow, written when the script ends or reads some of them: what its moves count is added up before.
local sums = {}

local function add_up(name, field, by)
  sums[name] = sums[name] or {}
  sums[name][field] = (sums[name][field] or 0) + by
end

local function write_sums()
  for name, fields in pairs(sums) do
    for field, by in pairs(fields) do
      if by ~= 0 then redis.call('HINCRBY', key(name), field, by) end
    end
  end
  sums = {}
end

-- What upstream takes for a stage; voicequeue/domain/stage.py says the same.
local PRICE = { voice = 4, music = 15 }

-- Credits from a stage on, to the job's end.
local function cost_from(stage, next_stage)
  return PRICE[stage] + (stage == 'voice' and next_stage and PRICE[next_stage] or 0)
end

-- Credits that are promised to a job: what it is still going to spend in flight. An order that is on its way, or whose
-- answer was lost, may be charged; after it no other is sent for a job that is to be cancelled.
local function committed(state, stage, next_stage, cancelling)
  if state == 'charging' or state == 'unsure' then return cost_from(stage, not cancelling and next_stage) end
  if state == 'admitted' then return cost_from(stage, next_stage) end
  if state == 'pending' then return cost_from(stage, next_stage) - PRICE[stage] end
  return 0
end

local FINAL = { succeeded = true, failed = true, cancelled = true }

-- Where it stands when a job of this state next needs somebody; nil where none ever does.
local DUE = { admitted = 'flight', charging = 'flight', pending = 'flight', succeeded = 'late', failed = 'late',
  cancelled = 'late' }
local function due_key(state) return DUE[state] and key(DUE[state]) end

-- The time (seconds) in which nothing asked about an order that was due, because nothing ran or because Redis's clock was
-- set forward, does not count towards its deadline: it is as if it was ordered later. How long it takes is unknown then.
local IDLE_S = 120
local function without_idle_time(id, state, overdue_s)
  if state ~= 'pending' or overdue_s < IDLE_S then return nil end
  redis.call('HSET', key('job:' .. id), 'asked', 0)
  return redis.call('HINCRBYFLOAT', key('job:' .. id), 'since', overdue_s)
end
