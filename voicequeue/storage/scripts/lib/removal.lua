-- Removal of settled jobs, by the purge or by an erasure. What they spent stays counted.

local function remove_job(id, job)
  local credits = tonumber(job.credits or 0)
  redis.call('DEL', JOB .. id, TIMELINE .. id)
  set_score(state_index(job.state, job.batch), id, false)
  redis.call('ZREM', key('archive:failed'), id)
  add_to_state_count(job.state, job.stage, -1)
  count_failure(job.failure, job, -1)
  add_to_counter('counters', 'purged.' .. job.state, 1)
  add_to_counter('counters', 'purged.credits', credits)
  if job.shared_voice then leave_voice(job.shared_voice) end
  add_to_owners(job, 'purged.credits', credits)
  add_to_purged_days(job, credits_by_day(job))
  -- Its lost orders may have been charged: their cost stays counted, in budgets for the day and month of the order.
  add_lost_of_removed(job, unsettled_by_day(job))
  if is_batch(job.batch) then add_to_counter('batch:' .. job.batch, 'lost.credits', unsettled_credits(job)) end
  add_to_owners(job, 'reserved', -unsettled_credits(job))
  add_to_counter('counters', 'purged.unsettled', unsettled_credits(job))
  if is_batch(job.batch) then remove_from_batch(job.batch, id, job.state) end
  redis.call('XADD', key('purged'), 'MAXLEN', '~', EVENTS_KEPT, '*', 'id', id, 'batch', job.batch or '')
end
