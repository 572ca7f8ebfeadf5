-- Shared by every script: the keys, and what follows from a job's state.
--
-- KEYS[1] is the root, "{prefix}:". Every key begins with it, so all of them are in one cluster slot.
--
-- Namespaces: a name in a namespace is <namespace>/<name>, in the default namespace <name> alone. So are the names of
-- batches and shared voices; a job without a batch has the batch <namespace>/ (in the default namespace none), which is a
-- lane of its own and no batch in lists. The indexes state:<state>, batches, voices and rejected_messages exist once for
-- each namespace: of any but the default one as <index>/<namespace>.
--   namespaces     zset    every namespace but the default one that ever had a job or rejected message; score = since when
--   namespace:<name> hash  also of the default one, which has the name '': credits, reserved, queued_credits, purged.credits
--                          and failed.<code>, as in batch:<name>; in_flight: jobs with a slot; day.<n>, month.<yyyymm> and
--                          purged.day.<n>, lost.day.<n> and lost.month.<yyyymm>, as in `counters`; of any but the
--                          default one also callbacks.delivered, archive.files and archive.jobs
--   key:<name>     hash    the same of jobs that were enqueued with the API key of that name
--   owners         zset    namespace/<name> and key/<name> that ever had a job; score = since when
--   id_secret      string  the secret from which ids are derived; 'unkeyed' if jobs existed before there was one
--
-- Jobs
--   job:<id>       hash    the record: spec, state, stage, version, rank, created, updated, batch, next_stage,
--                          source (which interface and caller enqueued it: voicequeue/domain/source.py),
--                          source_row (its row in the caller's file), message_ids (JSON: ids of the Celery messages
--                          that it came from);
--                          later attempt, holder (token of the claim), submitted_at (see IDLE_S), not_ready_at (when it
--                          was last not ready; 0 = unknown), model, credits,
--                          requeued_at (when it went back to the backlog), refused (JSON, while upstream refuses its
--                          order with an error that may concern every order: count, own_count, accepted, at, message),
--                          earlier_specs (JSON: SHA-1 of each spec that it had before its recording was corrected),
--                          recheck (JSON, while the check of its recording has not succeeded: since, checked_at (or
--                          when the job was retried), count),
--                          cancelling (time of the cancellation request, while charging or unsure),
--                          shared_voice (id of the voice that it shares), sha256 (of the recording),
--                          voice.task, music.task (upstream's current task), orders (JSON: upstream's task by attempt,
--                          of each charged order), submissions (JSON: day and cost by attempt, of each order that was
--                          sent), lost_orders (JSON: stage by attempt, of orders that may have been
--                          charged and were given up or resubmitted), failure_report (JSON: a failure that upstream
--                          reported once), resubmit (1: submit again when that failure is confirmed),
--                          upstream_response (start of an unreadable response to its last order),
--                          sampled (the sample of its batch that counts its failure, with `:free` if nothing was paid),
--                          persona_id, voice_name, clips, failure, settled,
--                          callback (id of its last callback); archive (pending, done, failed), until done
--                          archive.since, archive.attempts, archive.reason, archive.holder (token of the claim);
--                          archived.audio.<clip>, archived.image.<clip> (JSON: url, size, sha256)
--   timeline:<id>  list    every transition as JSON: at, state, stage, reason, attempt, task_id
--   state:<state>  zset    ids of one namespace in any state but queued; score = when they entered it
--   in_flight      zset    ids that hold a slot; score = when they are due
--   late_results   zset    ids of settled jobs whose charged order may still deliver; score = when the poll is due
--   resting        zset    queued ids whose recording is to be checked again; score = when they may be admitted
--   recording_check:<hash> string JSON: the outcome of the check of the recording whose URL has this SHA-1; expires after
--                          two minutes
--   start_by       zset    ids with a deadline for their start, until they are settled or seen to have started
--   state_counts   hash    <state>:<stage>: number of jobs; queued jobs are counted by their lanes
--   events         stream  every transition: id, batch, state, stage, reason, took (seconds since the previous one);
--                          one event without an id for each enqueueing call and batch
--   purged         stream  purged jobs: id, batch
--   event_cursor   string  id of the last event that was logged
--
-- The backlog
--   lane:<rank>:<batch> zset queued ids of one priority and batch; the head has the lowest score
--   lanes:<rank>   zset    batches with such a lane; score = turn order
--   backlog        hash    queued_credits: what queued and waiting jobs will spend
--   wake           list    one element while there may be a job to admit
--   summaries:<index> zset summaries of ranges of a lane or of the jobs in a state (lib/summaries.lua); score = lowest score
--   summary:<id>   string  the tokens of the jobs of a range, as a Bloom filter (domain/token_filter.py); it expires
--   summarized     set     lanes and other indexes that have summaries
--   summarized:at  string  when summaries were last built: a clock that is behind was set back
--   admit_stops    string  JSON, if the last admission passed over too many lanes or jobs: where the next one continues
--
-- Voices
--   voice:<voice>  hash    a voice by its recording (url-…, sha256-…) or its name in a batch (named-…): creator (the
--                          job that is to create it); then persona_id, name, job (that created it), at, audio_url;
--                          failure (JSON) while waiting jobs fail with it; of a named voice also recording and jobs (how many share it)
--   waiting:<voice> zset   ids that wait for it; score = when they were created
--   voices         zset    created voices of one namespace by URL; score = when they were created
--   voices:decided set     voices that were created or failed and still have waiting jobs
--
-- Batches
--   batches:stopped zset   names of batches that stopped themselves; score = when; batches:stopped:unlogged: set of those
--                          whose stop was not logged yet
--   batches        zset    names of the batches of one namespace that have jobs; score = when the first was created
--   batch:<name>   hash    number of jobs by state; credits; queued_credits: as in `backlog`; reserved: as in `counters`,
--                          plus the cost of lost orders that were given up or resubmitted; purged.credits: credits of purged jobs,
--                          included in credits; failed.<code>: number of failed jobs; day.<n>, month.<yyyymm> and
--                          purged.day.<n>, as in `counters`, but days are kept; lost.credits: cost of lost orders of
--                          removed jobs; settings: max_credits, max_in_flight,
--                          stop_after, stop_min, paused, callback_url, callback_source (who set it);
--                          settled_count: how many callbacks were created for it; sample.settled, sample.failed,
--                          sample.failed.<code>, sample.free (failures for which nothing was paid): outcomes since the
--                          last stop (lib/stop_loss.lua); sample.round: number of ended stops; stopped (JSON, while it
--                          is stopped: at, settled, in_flight, failed_by_code, stop_after)
--   batch:<name>:jobs zset its ids; score = when they were created
--
-- Flow control
--   gate           hash    by reason, JSON: since, detail, ends_at, failures (failed trials); closed_at, trial_at (an
--                          early trial of jobs that were enqueued later)
--   flow           hash    limit, ceiling, streak, probe_after, step, probed_at (the number of accepted orders at that time),
--                          decreased_at: the limit of jobs in flight; tat: the submit rate (GCRA); accepted_at: when
--                          upstream last accepted an order; accepted.<stage>: how many it accepted; failures:
--                          consecutive requests without a response; waiting_cursor: how many waiting jobs the current
--                          round has examined
--   refused        zset    ids whose record has `refused`; score = when the order may be sent again
--   refused:<reason> set   those refused for this reason since upstream last accepted an order
--   rate_limited   zset    ids whose order upstream rate-limited in the last ten minutes; score = when
--   unanswered:<reason> set subjects of failed requests since upstream last responded: ids, `balance`, `any`
--   settings       hash    the limits in the workers' settings
--   limits         hash    limits set at run time: in_flight, submit_rate, min_balance
--   budget:<owner> hash    day, month: credits that the owner (account, namespace/<name>, key/<name>) may spend in a period
--                          (UTC); max_in_flight: its jobs in flight (of an API key in Redis a copy of what its record
--                          says); hard: 1 = new jobs over it are refused; callback_url, callback_source: as of a batch
--   budgets:reported hash  "<owner> <period>": the end of the period, the limit, and the percentage of its use that was
--                          reported last; seq: number of callbacks about budgets
--   budgets        set     owners that have a budget
--   poll_durations:<kind> list "over within": durations of the latest orders of a stage and model
--   poll_kinds     set     those kinds
--   poll_schedules hash    by kind, JSON: the ages at which orders are polled
--   lock:<name>    string  held by the worker that does something for all workers
--
-- Credits
--   counters       hash    <stage>.charges, <stage>.credits: permanent; day.<n>, month.<yyyymm>: credits of orders that were
--                          submitted then (UTC; n since 1970, 400 days are kept); purged.day.<n>: those of purged jobs,
--                          included in day.<n>; lost.day.<n>, lost.month.<yyyymm>: cost of lost orders of removed jobs
--                          that were submitted then; days_from: first day of which the counters of owners are complete;
--                          corrected.credits: what repairs added;
--                          corrections: number of repairs; reserved: credits reserved for jobs in flight and unsure
--                          jobs; unsettled: cost of lost orders that were given up or resubmitted; failed.<code>:
--                          number of failed jobs; lane_turn: last turn given to a lane; callbacks.delivered;
--                          archive.files, archive.jobs: how many were archived; purged.<state>: number of purged jobs;
--                          purged.credits: what they had spent; purged.unsettled: the part of
--                          unsettled that they had
--   account        hash    credits by our count, at (time of upstream's last report), uncertain (how many more there may be:
--                          orders were being sent at that time), shortage (JSON, while the next job cannot be paid), drift
--                          (JSON, while more credits are gone than were counted)
--   balances       list    JSON: balances reported by upstream, with our spending and orders at that time
--
-- Callbacks
--   callback:<id>  hash    subject (job:<id>, batch:<name> or budget:<owner>), seq (its order there), type, at, snapshot (JSON: the record
--                          at that time), batch; later attempts, reason, since (time of a manual redelivery). Deleted when
--                          delivered
--   callbacks:order:<subject> zset pending ids; score = seq. Only the first is due, the others wait for it
--   callbacks:pending zset ids; score = when they are due, +inf while they wait for an earlier one
--   callbacks:leased zset  ids handed out and not yet claimed; score = when that expires
--   callbacks:undelivered zset ids; score = when they were given up
--   callback_secrets hash  by name of the API key, JSON: its callback secret, encrypted (voicequeue/auth/callback_secrets.py)
--
-- The archive
--   archive:pending zset   ids whose songs are not archived yet; score = when they are due
--   archive:leased zset    ids handed out and not yet claimed; score = when that expires
--   archive:failed zset    ids whose songs could not be archived; score = when they were given up
--
-- Operations
--   format         hash    version: the format of the queue; oldest_reader: the oldest format that a release has to know to
--                          use it (lib/format.lua, docs/guides/upgrading.md)
--   heartbeats     zset    worker names; score = last heartbeat; callbacks:heartbeats, archive:heartbeats and
--                          gateway:heartbeats: of the processes that deliver callbacks, archive songs, serve HTTP;
--                          idle:heartbeats: of processes `archive` without an archive
--   heartbeats:facts hash  by worker name, JSON: its facts, such as when it last consumed each queue
--                          (voicequeue/storage/monitoring/consumption.py); callbacks:heartbeats:facts, …
--   replication_marker string empty; written before a process waits for replicas, so that there is something to wait for
--   old_secrets    hash    by mark of an old value of VOICEQUEUE_SECRET: when a process first reported that it accepts it
--   metrics        hash    what processes count and measure (voicequeue/storage/monitoring/metrics.py)
--   samples:hour, samples:day, samples:week stream the queue over time, one sample for each minute, ten minutes and hour:
--                          at, number of jobs by state, in_flight, in_flight_limit, spent, balance
--   rejected_messages list JSON: messages for one namespace that became no job: rejected_at, message_id, task, reason, job
--   rejected_messages:bytes string their total size
--   audit_log      stream  changes made by people and programs (lib/audit_log.lua): id (of the change), actor, address,
--                          action, namespace, job_id, batch, details (JSON), reason, credits, jobs; no empty fields
--   bulk_plan:<token> list a planned bulk change: JSON of its action and counts, then "id version namespace" of each job; it
--                          expires
--   tombstones     hash    secret; by keyed hash of each erased id and recording (lib/tombstones.lua): when it was erased
--   erasing        zset    ids that are erased as soon as they are settled; score = when that was requested
--   erased_traces  set     JSON: id, batch ('' = none) and voice of the recording by URL ('' = none) of erased jobs that
--                          events, callbacks, voices or the audit log may name
--   erased_files   zset    JSON: id and batch of erased jobs whose archived files are to be deleted; score = when
--   consent_required string exists while new jobs need metadata.consent_ref
--   session:<id>   hash    a login to the job page, by the SHA-256 of its cookie: name of the API key, since, proof (keyed
--                          with VOICEQUEUE_SECRET, over id, since and the key's configuration); expires after 12 hours
--   session:<id>:notice string a message for its next page; expires after a minute
--   sessions:<name> zset   sessions of the API key of that name; score = since
--   api_keys       hash    by name, JSON: an API key that was created at run time, without its secret (domain/api_keys.py);
--                          a revoked one stays, so that its name is not given again
--   api_keys:version string hash of all changes of `api_keys`, by which gateways notice them
--   api_keys:last_used hash by name: time of the last request, about a minute exact
--   api_keys:rate:<name> string time until which the key has used its requests (GCRA); expires then
--   failed_logins  zset    addresses with failed logins; score = time of the last attempt
--   failed_logins:attempts hash by address: number of attempts
--   celery:<name>          Celery's own keys, written by kombu only: queues (lists), unacked, bindings
--
-- Times are Unix seconds by Redis's clock, passed by the caller (voicequeue/storage/connection/clock.py).
local root = KEYS[1]
-- The last argument is an entry of the audit log if KEYS[2] names that log (lib/audit_log.lua).
local audit_argument = KEYS[2] and table.remove(ARGV)
local function key(name) return root .. name end

-- The record of a job is JOB .. id, its timeline TIMELINE .. id.
local JOB, TIMELINE = key('job:'), key('timeline:')

-- Return the namespace of a batch or a shared voice (nil: of a job without a batch).
local function namespace_of(name) return name and name:match('^([^/]*)/') or '' end

-- Return the name of the index that a namespace has of its own.
local function index_of(name, namespace) return namespace == '' and name or name .. '/' .. namespace end

-- Return whether the `batch` of a job is a batch, not only a namespace.
local function is_batch(batch) return batch and batch ~= '' and batch:sub(-1) ~= '/' end

-- Return the key of the index of the jobs of a namespace in a state. The jobs of a call have few batches and states.
local state_keys = {}
local function state_index(state, batch)
  local keys = state_keys[batch or '']
  if not keys then
    keys = {}
    state_keys[batch or ''] = keys
  end
  keys[state] = keys[state] or key(index_of('state:' .. state, namespace_of(batch)))
  return keys[state]
end

-- Return a table of the given fields of a hash; missing fields are nil.
local function read_fields(name, fields)
  local record, values = {}, redis.call('HMGET', key(name), unpack(fields))
  for i, field in ipairs(fields) do record[field] = values[i] or nil end
  return record
end

-- Increments of counters, collected and written when the script ends or reads a counter.
local increments = {}

-- What owners use, by the name of their counters, as read by this script (lib/budgets.lua).
local usages = {}

local function add_to_counter(name, field, amount)
  if amount == 0 then return end
  local fields = increments[name]
  if not fields then
    fields = {}
    increments[name] = fields
  end
  if usages[name] then usages[name] = nil end -- nil for a new name would enlarge the table
  fields[field] = (fields[field] or 0) + amount
end

-- Return the name of the API key in the source of a job; nil if it was not enqueued with one.
local function api_key_of(source) return source and source:match('^http:(.+)$') end

-- Return the counters of a job's namespace and API key.
local function spenders_of(job)
  local name = api_key_of(job.source)
  return { 'namespace:' .. namespace_of(job.batch), name and 'key:' .. name }
end

-- Return the counters of a job's batch, namespace and API key.
local function owners_of(job)
  if job.owners then return job.owners end
  local owners = spenders_of(job)
  if is_batch(job.batch) then owners[#owners + 1] = 'batch:' .. job.batch end
  job.owners = owners
  return owners
end

local function add_to_owners(job, field, amount)
  if amount == 0 then return end
  for _, counters in ipairs(owners_of(job)) do add_to_counter(counters, field, amount) end
end

-- Add 1 to a counter of the whole queue and of the namespace of a job or batch.
local function add_to_total(batch, field)
  add_to_counter('counters', field, 1)
  if namespace_of(batch) ~= '' then add_to_counter('namespace:' .. namespace_of(batch), field, 1) end
end

-- What jobs of one kind change alike is collected by kind, with their number, and becomes increments when they are
-- written: `count(number, ...)` is called with the values of the first. The name of a kind must say all that they depend
-- on; names of batches have no colon.
local kinds = {}
local function count_kind(kind, count, ...)
  local counted = kinds[kind]
  if counted then
    counted.number = counted.number + 1
  else
    kinds[kind] = { number = 1, count = count, ... }
    if next(usages) then usages = {} end
  end
end

local function flush_counters()
  local counted = kinds
  kinds = {}
  for _, kind in pairs(counted) do kind.count(kind.number, unpack(kind)) end
  for name, fields in pairs(increments) do
    for field, amount in pairs(fields) do
      if amount ~= 0 then redis.call('HINCRBY', key(name), field, amount) end
    end
  end
  increments = {}
end

-- Scores of members of sorted sets, collected and written together when the script ends, because the jobs of a call change
-- the same few sets. false = the member is removed. A script that reads such a set later calls `flush_scores` before.
local scores = {}
local function set_score(index, member, score)
  local members = scores[index]
  if not members then
    members = {}
    scores[index] = members
  end
  members[member] = score
end

-- The most values that one command gets: Lua passes a limited number.
local VALUES_MAX = 4000

-- Return whether this script removes a member of a sorted set.
local function is_removed(index, member) return scores[index] and scores[index][member] == false end

-- By lane that a job has left: the set of lanes that it is to be removed from if it is empty now, and its name there.
local left_lanes = {}

local function call_with(command, name, values)
  for v = 1, #values, VALUES_MAX do
    redis.call(command, name, unpack(values, v, math.min(v + VALUES_MAX - 1, #values)))
  end
end

local function flush_scores()
  if not next(scores) then return end
  for index, members in pairs(scores) do
    local added, removed, n = {}, {}, 0
    for member, score in pairs(members) do
      if score then
        added[n + 1], added[n + 2], n = score, member, n + 2
      else
        removed[#removed + 1] = member
      end
    end
    call_with('ZREM', index, removed)
    call_with('ZADD', index, added)
  end
  scores = {}
  for lane, place in pairs(left_lanes) do
    if redis.call('EXISTS', lane) == 0 then redis.call('ZREM', unpack(place)) end
  end
  left_lanes = {}
end

-- Return the number of jobs in this state, by stage; not for queued.
local function counts_in_state(state)
  flush_counters()
  local counts = redis.call('HMGET', key('state_counts'), state .. ':voice', state .. ':music')
  return { voice = tonumber(counts[1] or 0), music = tonumber(counts[2] or 0) }
end

local function count_in_state(state)
  local counts = counts_in_state(state)
  return counts.voice + counts.music
end

-- Upstream's price of each stage in credits; the same as in voicequeue/domain/stage.py.
local PRICE = { voice = 4, music = 15 }
local PRICE_MIN = PRICE.voice

-- Return the cost of a job from this stage to its end.
local function cost_from_stage(stage, next_stage)
  return PRICE[stage] + (stage == 'voice' and next_stage and PRICE[next_stage] or 0)
end

-- Return the credits reserved for a job: what it may still spend while in flight or unsure. An order that is being
-- sent, or whose response was lost, may be charged; a job to be cancelled gets no further order.
local function reserved_credits(state, stage, next_stage, cancelling)
  if state == 'charging' or state == 'unsure' then return cost_from_stage(stage, not cancelling and next_stage) end
  if state == 'admitted' then return cost_from_stage(stage, next_stage) end
  if state == 'pending' then return cost_from_stage(stage, next_stage) - PRICE[stage] end
  return 0
end

-- Return the credits that a job in the backlog, or one that waits for a voice, will spend. The voice is counted for the
-- job that creates it.
local function queued_credits(state, stage, next_stage)
  if state == 'queued' then return cost_from_stage(stage, next_stage) end
  if state == 'waiting' then return cost_from_stage(stage, next_stage) - PRICE[stage] end
  return 0
end

local IN_FLIGHT = { admitted = true, charging = true, pending = true }
local FINAL = { succeeded = true, failed = true, cancelled = true }

-- The index with the due time of a job in this state; nil if it has none.
local FLIGHT, LATE = key('in_flight'), key('late_results')
local DUE_INDEX = { admitted = FLIGHT, charging = FLIGHT, pending = FLIGHT, succeeded = LATE, failed = LATE, cancelled = LATE }
local function due_index(state) return DUE_INDEX[state] end

-- exclude_idle_time: if a poll is overdue by at least IDLE_S seconds, because no worker ran or Redis's clock was set
-- forward, move the submission time forward, so that the job's deadline does not count this time. Its duration is
-- unknown then. Returns the new submission time; nil if nothing changed.
local IDLE_S = 120
local function exclude_idle_time(id, state, overdue_s)
  if state ~= 'pending' or overdue_s < IDLE_S then return nil end
  redis.call('HSET', JOB .. id, 'not_ready_at', 0)
  return redis.call('HINCRBYFLOAT', JOB .. id, 'submitted_at', overdue_s)
end
