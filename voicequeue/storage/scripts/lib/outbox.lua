-- Leased outboxes (`callbacks`, `archive`): <outbox>:pending holds every entry to be processed, scored by when it is due;
-- <outbox>:leased holds those that were handed out and not claimed yet, scored by the end of the lease.

-- End the lease of an entry that a worker is about to claim. Return when the entry is due (false = it is not pending)
-- and whether it may be claimed now: it was handed out, or it is due.
local function end_lease(outbox, id, now)
  local due = redis.call('ZSCORE', key(outbox .. ':pending'), id)
  local was_handed_out = redis.call('ZREM', key(outbox .. ':leased'), id) == 1
  return due, due and due ~= 'inf' and (was_handed_out or tonumber(due) <= tonumber(now))
end
