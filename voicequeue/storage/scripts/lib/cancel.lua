-- Jobs whose cancelling is asked for while their order is on its way, or while its answer is lost: they are marked, and
-- cancelled as soon as it is known what became of the order. The version stays, so that the answer is still written.

local UNDER_WAY = { charging = true, unsure = true }

-- withdraw: mark a job. Gives 1, or 0 where it has moved on since it was read.
local function withdraw(id, v, now)
  local job = record(id)
  if job.v ~= v or not UNDER_WAY[job.state] then return 0 end
  if not job.cancelling then
    redis.call('HSET', key('job:' .. id), 'cancelling', now)
    local promised = committed(job.state, job.stage, job.next)
    commit(job.batch, committed(job.state, job.stage, job.next, now) - promised)
    announce(id, job.batch, job.state, job.stage, 'to be cancelled')
  end
  return 1
end

-- Whether a move is not made, for it would send the lost order of a marked job again.
local function is_withheld(job, m) return job.cancelling and m.to == 'admitted' and m.unsettled end

-- cancel_instead: where a job is marked, make another move of the one that was decided on. A job that upstream took is
-- asked about like any other that is cancelled.
local function cancel_instead(job, m, now)
  if not job.cancelling or m.to == 'unsure' then return end
  table.insert(m.unset, 'cancelling')
  m.withdrawn = true
  if FINAL[m.to] then return end
  local is_paid = m.to == 'pending'
  m.reason = is_paid and 'cancelled; upstream took the order, and what comes is kept'
    or 'cancelled; the order was certainly not charged'
  m.due = is_paid and m.due or nil
  m.set.settled = now
  m.to = 'cancelled'
end
