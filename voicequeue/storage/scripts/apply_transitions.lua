-- apply_transitions: write transitions decided in Python, each if its job is still as it was when they were decided.
-- KEYS  root
-- ARGV  now, JSON list of transitions, then the limits. A transition is {id, version, from = {state, stage}, holder, to,
--       stage, due, reason, set = {field: value}, unset = [field], credits, task_id, attempt = the order of these two,
--       archive = archive its songs, refused = upstream refused its order (lib/refusals.lua), unsettled = cost of a lost
--       order that is given up, rests_until = when a job that is queued again may be admitted}
-- RETURNS  for each transition 1 = written (for a job to be cancelled perhaps another one), 0 = the job has changed,
--          or the job is to be cancelled and may not be resubmitted; for a refused order 2 = a trial has started,
--          3 = submission is held
local now, limits, transitions = ARGV[1], limits_from(3), cjson.decode(ARGV[2])
local results, accepted, has_responded = {}, {}, false
local is_mixed = is_any_accepted(transitions)

for i, t in ipairs(transitions) do
  local job = read_record(t.id, fields_needed(t))
  local state, failure, shared_voice = job.state, job.failure, t.stage == 'voice' and job.shared_voice
  results[i] = 0
  if is_unchanged(job, t) and not is_resubmission_blocked(job, t) then
    -- A job that goes back to the backlog waits if another job creates its voice by now.
    local is_requeued = t.to == 'queued' and (FINAL[state] or state == 'pending')
    if shared_voice and is_requeued and not become_creator(shared_voice, t.id) then t.to = 'waiting' end
    if t.credits > 0 then
      t.attempt = t.attempt or job.attempt or '0'
      local orders, credits, submissions = count_order(job, t, now)
      if orders then t.set.orders, t.set.credits, t.set.submissions = orders, credits, submissions end
      if state == 'charging' then accepted[t.stage] = (accepted[t.stage] or 0) + 1 end
    end
    if t.unsettled then add_unsettled(job, t.unsettled) end
    results[i] = t.refused and state == 'charging' and record_refusal(t.id, t, job, now, is_mixed) or 1
    has_responded = has_responded or (state == 'pending' and (t.to == 'succeeded' or t.to == 'admitted'))
    cancel_if_requested(job, t, now)
    sample_outcome(job, t)
    transition(t.id, t, now, job)
    if t.rests_until and t.to == 'queued' then redis.call('ZADD', key('resting'), t.rests_until, t.id) end
    count_failure(failure, job, -1)
    count_failure(job.failure, job, 1)
    if t.archive then schedule_archiving(t.id, now) end
    if t.set.persona_id then
      voice_created(t.id, job, t.set, now)
    elseif shared_voice then
      voice_stage_changed(t.id, shared_voice, t, now)
    end
  end
end
if has_responded then upstream_responded() end
if next(accepted) then upstream_accepted(limits, now, accepted) end
for batch in pairs(batches_to_check) do stop_if_failing(batch, now) end
return results
