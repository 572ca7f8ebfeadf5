-- Cancellation of jobs whose order is being sent, or whose response was lost: they are marked, and cancelled as soon
-- as the outcome of the order is known. The version stays, so that the outcome can still be written.

local IS_SUBMITTED = { charging = true, unsure = true }

-- Mark a job. Returns 1, or 0 if its version has changed.
local function request_cancellation(id, version, now)
  local job = read_record(id)
  if job.version ~= version or not IS_SUBMITTED[job.state] then return 0 end
  if not job.cancelling then
    redis.call('HSET', JOB .. id, 'cancelling', now)
    local reserved = reserved_credits(job.state, job.stage, job.next_stage)
    reserve_credits(job, reserved_credits(job.state, job.stage, job.next_stage, now) - reserved)
    add_event(id, job.batch, job.state, job.stage, 'cancellation requested')
  end
  return 1
end

-- Return whether a transition is not allowed because it would resubmit the lost order of a marked job.
local function is_resubmission_blocked(job, t) return job.cancelling and t.to == 'admitted' and t.unsettled end

-- Replace the transition of a marked job by its cancellation. An accepted order is polled like that of any cancelled
-- job.
local function cancel_if_requested(job, t, now)
  if not job.cancelling or t.to == 'unsure' then return end
  table.insert(t.unset, 'cancelling')
  t.was_cancelling = true
  if FINAL[t.to] then return end
  local is_charged = t.to == 'pending'
  t.reason = is_charged and 'cancelled; upstream accepted the order, its result will be kept'
    or 'cancelled; the order was not charged'
  t.due = is_charged and t.due or nil
  t.set.settled = now
  t.to = 'cancelled'
end
