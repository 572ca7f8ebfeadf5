-- admit: move jobs from the backlog into flight: by priority, within a priority batch by batch in turn, as many as
-- slots, submit rate and credits allow. During a trial this is one job, preferably one that was not refused yet;
-- after each second failed trial it is taken from the end of the backlog, because similar jobs often follow one
-- another.
-- KEYS  root
-- ARGV  now, maximum number to admit, then the limits
-- RETURNS  'short' or 'enough' if that has changed since the last call, else ''; then id, stage, id, stage, …
local now, limits = tonumber(ARGV[1]), limits_from(3)
local paused, gate, failures = paused_stages(), gate_state(now)
redis.call('DEL', key('wake'))
local is_early = gate == 'closed' and try_early_trial(now, paused)
if gate == 'closed' and not is_early then return { '' } end

local waiting = count_in_state('admitted')
local free = math.min(current_limit(limits) - redis.call('ZCARD', key('in_flight')), tonumber(ARGV[2]))
-- Jobs that cannot be submitted within seconds need no slot.
if limits.rate then free = math.min(free, math.ceil(limits.rate / 20) - waiting) end
if gate ~= 'open' then free = math.min(free, 1 - waiting - count_in_state('charging')) end

local credits = available_credits(limits.floor)
local from_end = is_early or (failures % 2 == 1 and redis.call('EXISTS', key('refused')) == 1)
local admitted, shortage, is_over, stops = { '' }, nil, false, { lanes = {}, jobs = {} }

-- Admit the next job of a batch. Returns whether there was one, and whether the account or its namespace allows none.
local function admit_from(rank, batch, head_of, skip_key)
  is_over = is_owner_held('account', now)
  if is_over or is_owner_held('namespace/' .. namespace_of(batch), now) then return false, true end
  local id, job, cost = next_allowed(rank, batch, head_of, skip_key, now)
  if not id then return false end
  if credits and credits < cost then shortage = cost return false end
  admitted[#admitted + 1], admitted[#admitted + 2] = id, job.stage
  transition(id, { to = 'admitted', stage = job.stage, due = ARGV[1] }, ARGV[1], job)
  credits, free = credits and credits - cost, free - 1
  return true
end

local function may_admit() return free > 0 and not shortage and not is_over end

local function admit_all(refused_too, is_reversed)
  flush_scores() -- a job that was admitted already has left its lane
  local is_skipped, skip_key = skips_held_keys(skips_refused(now, refused_too))
  local head_of = lane_heads(paused, is_skipped, from_end, not from_end and admission_starts, stops.jobs)
  for n = 0, 2 do
    local rank = is_reversed and 2 - n or n
    visit_lanes(tostring(rank), stops.lanes, may_admit, function(batch)
      return admit_from(rank, batch, head_of, skip_key)
    end)
  end
end

if gate ~= 'open' then admit_all(true, from_end) end
admit_all(false)
keep_stops(stops)
admitted[1] = record_shortage(now, shortage, credits, free)
return admitted
