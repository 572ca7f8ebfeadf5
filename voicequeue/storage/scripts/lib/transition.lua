-- How a transition is written, with every index, counter and event that follows from it.

-- Append an entry to the events. The first one of a script trims them.
local EVENTS_KEPT = 20000
local is_trimmed = false
local function append_to_events(...)
  if is_trimmed then return redis.call('XADD', key('events'), '*', ...) end
  is_trimmed = true
  redis.call('XADD', key('events'), 'MAXLEN', '~', EVENTS_KEPT, '*', ...)
end

local function add_event(id, batch, state, stage, reason, took)
  append_to_events('id', id, 'batch', batch or '', 'state', state, 'stage', stage, 'reason', reason or '', 'took', took or '')
end

-- Return whether the queue derives ids from the secret with this SHA-1; '' is any.
local function has_id_secret(sha1)
  return sha1 == '' or redis.sha1hex(redis.call('GET', key('id_secret')) or '') == sha1
end

-- Return whether this was the content of a job before its recording was corrected.
local function was_enqueued_as(id, spec)
  local earlier = redis.call('HGET', JOB .. id, 'earlier_specs')
  return earlier and earlier:find(redis.sha1hex(spec), 1, true) ~= nil
end

-- Count jobs by state and stage; queued jobs are counted by their lanes.
local function add_to_state_count(state, stage, change)
  if state ~= 'queued' then add_to_counter('state_counts', state .. ':' .. stage, change) end
end

-- Update the indexes that follow from the state.
local function update_state_indexes(id, batch, from, to, now)
  if from ~= 'queued' then set_score(state_index(from, batch), id, false) end
  if to == 'queued' then return end
  set_score(state_index(to, batch), id, now)
  if is_late_call(now) then drop_summary(index_of('state:' .. to, namespace_of(batch)), now) end
end

local function reserve_credits(job, change)
  add_to_counter('counters', 'reserved', change)
  add_to_owners(job, 'reserved', change)
end

local function add_queued_credits(job, change)
  add_to_counter('backlog', 'queued_credits', change)
  add_to_owners(job, 'queued_credits', change)
end

-- Count this number of jobs that move from a state and stage to another; `was_cancelling`, `is_cancelling`: whether they
-- were and are to be cancelled.
local function count_moves(number, job, from, stage, to, to_stage, was_cancelling, is_cancelling)
  if from ~= to and is_batch(job.batch) then
    add_to_counter('batch:' .. job.batch, from, -number)
    add_to_counter('batch:' .. job.batch, to, number)
  end
  local slots = (IN_FLIGHT[to] and 1 or 0) - (IN_FLIGHT[from] and 1 or 0)
  for _, counters in ipairs(spenders_of(job)) do add_to_counter(counters, 'in_flight', slots * number) end
  add_to_state_count(from, stage, -number)
  add_to_state_count(to, to_stage, number)
  local next_stage = job.next_stage
  local reserved = reserved_credits(to, to_stage, next_stage, is_cancelling)
    - reserved_credits(from, stage, next_stage, was_cancelling)
  reserve_credits(job, reserved * number)
  add_queued_credits(job, (queued_credits(to, to_stage, next_stage) - queued_credits(from, stage, next_stage)) * number)
end

-- Update the slot, the lane or the queue for a voice.
local function update_position(id, from, job, t)
  local before, after = due_index(from), t.due and due_index(t.to)
  if before and before ~= after then set_score(before, id, false) end
  if after then set_score(after, id, t.due) end
  if from == 'queued' then leave_lane(job.rank, job.batch, id) end
  if from == 'queued' and job.recheck then redis.call('ZREM', key('resting'), id) end
  if from == 'waiting' and job.shared_voice then redis.call('ZREM', key('waiting:' .. job.shared_voice), id) end
  local since = job.requeued_at or job.created
  if t.to == 'waiting' then redis.call('ZADD', key('waiting:' .. job.shared_voice), since, id) end
  if t.to == 'queued' then join_lane(job.rank, job.batch, t.stage, tonumber(since), id) end
  -- The dispatcher fills free slots at its next interval, many at once; high priority does not wait for it.
  if before == FLIGHT and after ~= before and has_high_priority() then wake_dispatcher() end
  if FINAL[t.to] then set_score(key('start_by'), id, false) end
end

-- Return an entry of a timeline as JSON. Written by hand, because most of its values need no encoding.
local function timeline_entry(at, t, attempt)
  local reason = t.reason and ',"reason":' .. cjson.encode(t.reason) or ''
  local task_id = t.task_id and ',"task_id":' .. cjson.encode(t.task_id) or ''
  return '{"at":"' .. at .. '","state":"' .. t.to .. '","stage":"' .. t.stage .. '","attempt":' .. attempt .. reason .. task_id .. '}'
end

local function count_failure(failure, job, amount)
  if not failure then return end
  local field = 'failed.' .. cjson.decode(failure).code
  add_to_counter('counters', field, amount)
  add_to_owners(job, field, amount)
end

-- The fields of a record that transitions depend on. Each costs time, even if it is missing: what most transitions need is
-- in the middle, before it what belongs to orders, behind it what belongs to the place in a lane.
local RECORD_FIELDS = { 'lost_orders', 'orders', 'credits', 'submissions', 'holder', 'sampled', 'shared_voice', 'cancelling',
  'state', 'stage', 'version', 'batch', 'updated', 'attempt', 'next_stage', 'source', 'refused', 'recheck', 'created', 'rank',
  'requeued_at', 'failure' }
local ORDERS, SUBMISSIONS, SAMPLED, STATE, SOURCE, RECHECK, RANK = 1, 4, 6, 9, 16, 18, 20

-- Return the fields of a record from the first to the last of these, or all of them. Missing fields are false.
local function read_record(id, first, last)
  local v, n = redis.call('HMGET', JOB .. id, unpack(RECORD_FIELDS, first or 1, last or #RECORD_FIELDS)), 1 - (first or 1)
  -- Constructors: a table that grows field by field takes twice as long, and so does one of more than 16 fields.
  if first and first >= SAMPLED then
    return { sampled = v[n + 6], shared_voice = v[n + 7], cancelling = v[n + 8], state = v[n + 9], stage = v[n + 10],
      version = v[n + 11], batch = v[n + 12], updated = v[n + 13], attempt = v[n + 14], next_stage = v[n + 15],
      source = v[n + 16], refused = v[n + 17], recheck = v[n + 18], created = v[n + 19], rank = v[n + 20] }
  elseif first == SUBMISSIONS then
    return { submissions = v[1], holder = v[2], shared_voice = v[4], cancelling = v[5], state = v[6], stage = v[7],
      version = v[8], batch = v[9], updated = v[10], attempt = v[11], next_stage = v[12], source = v[13], refused = v[14],
      recheck = v[15] }
  end
  return { lost_orders = v[n + 1], orders = v[n + 2], credits = v[n + 3], submissions = v[n + 4], holder = v[n + 5],
    sampled = v[n + 6], shared_voice = v[n + 7], cancelling = v[n + 8], state = v[n + 9], stage = v[n + 10],
    version = v[n + 11], batch = v[n + 12], updated = v[n + 13], attempt = v[n + 14], next_stage = v[n + 15],
    source = v[n + 16], refused = v[n + 17], recheck = v[n + 18], created = v[n + 19], rank = v[n + 20],
    requeued_at = v[n + 21], failure = v[n + 22] }
end

-- Return the first and the last field that a transition in flight needs; nothing for all.
local function fields_needed(t)
  if t.from[1] == 'charging' and t.to == 'pending' then return ORDERS, RECHECK end
  local is_result = t.from[1] == 'pending' and (t.to == 'admitted' or t.to == 'succeeded')
  if is_result and t.credits == 0 and not t.holder then return SAMPLED, SOURCE end
end

-- Whether a job is still as it was when this transition was decided. The version alone does not say it: a failover
-- forgets changes, and others may have given the job the same version.
local function is_unchanged(job, t)
  local is_current = tonumber(job.version) == t.version and job.state == t.from[1] and job.stage == t.from[2]
  return is_current and (not t.holder or job.holder == t.holder)
end

-- States from which the current order may still be sent.
local BEFORE_SUBMISSION = { queued = true, admitted = true, charging = true }

-- Write one transition. The caller has compared the version.
-- t = {to, stage, due, reason, task_id, attempt, set = {field: value}, unset = [field]}; `job` is the record, if the
-- caller has read it; those of its fields that were set are updated. Returns the record.
local function transition(id, t, now, job)
  job = job or read_record(id)
  local from, stage, was_cancelling = job.state, job.stage, job.cancelling
  local fields, n = { 'state', t.to, 'updated', now, 'version', job.version + 1 }, 6
  if t.stage ~= stage then fields[7], fields[8], n = 'stage', t.stage, 8 end
  if t.set then
    for field, value in pairs(t.set) do
      if job[field] ~= nil then job[field] = value end -- was read: no other makes the table grow
      fields[n + 1], fields[n + 2], n = field, value, n + 2
    end
  end
  redis.call('HSET', JOB .. id, unpack(fields))
  if t.unset and t.unset[1] then
    redis.call('HDEL', JOB .. id, unpack(t.unset))
    for _, field in ipairs(t.unset) do job[field] = nil end
  end
  if job.refused and not (BEFORE_SUBMISSION[t.to] and t.stage == stage) then clear_refusal(id) end
  -- Once its recording was accepted, or its order is not to be sent, earlier failures of the check no longer count.
  local is_unchecked = t.stage == stage and (t.to == 'queued' or t.to == 'admitted')
  if job.recheck and not is_unchecked then redis.call('HDEL', JOB .. id, 'recheck') end
  update_state_indexes(id, job.batch, from, t.to, now)
  if t.to ~= 'charging' then total_reserved = nil end -- what is reserved may change
  local kind = from .. stage .. t.to .. t.stage .. (job.next_stage or '') .. ':' .. (was_cancelling and '1' or '0')
    .. (job.cancelling and '1' or '0') .. (job.batch or '') .. ':' .. (job.source or '')
  count_kind(kind, count_moves, job, from, stage, t.to, t.stage, was_cancelling, job.cancelling)
  update_position(id, from, job, t)
  redis.call('RPUSH', TIMELINE .. id, timeline_entry(now, t, t.attempt or job.attempt or '0'))
  local seconds = math.max(0, now - (job.updated or job.created or now))
  add_event(id, job.batch, t.to, t.stage, t.reason, string.format('%.3f', seconds))
  if from ~= t.to and RESTING[t.to] then enqueue_callbacks(id, job.batch, from, t.to, job.version + 1, now) end
  return job
end

-- Add an id to an index (`belongs` = 1) or remove it (0), as its record requires. Returns 1 if the index was wrong.
local function repair_index(index, id, belongs, now)
  local rank, batch = index:match('^lane:(%d):(.*)$')
  local is_member = redis.call('ZSCORE', key(index), id) and 1 or 0
  if is_member == belongs then return 0 end
  local archive_state = index:match('^archive:(%a+)$') -- changes without a new version
  if archive_state and (redis.call('HGET', JOB .. id, 'archive') == archive_state) ~= (belongs == 1) then
    return 0
  end
  if belongs == 0 then
    if rank then leave_lane(rank, batch, id) else redis.call('ZREM', key(index), id) end
    return 1
  end
  local job = redis.call('HMGET', JOB .. id, 'created', 'updated', 'stage', 'requeued_at')
  local created = job[1] or now
  if rank then
    join_lane(rank, batch, job[3], tonumber(job[4] or created), id)
  else
    local scores = { state = job[2] or created, batch = created, waiting = created, refused = 0 }
    -- In every other index the score is the due time.
    redis.call('ZADD', key(index), scores[index:match('^[^:]+')] or now, id)
    drop_summary(index, scores[index:match('^[^:]+')] or now)
  end
  return 1
end
