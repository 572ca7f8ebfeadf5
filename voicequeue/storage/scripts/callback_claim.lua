-- callback_claim: claim callbacks for one attempt each, if they are due or were handed out.
-- KEYS  root
-- ARGV  now, claim_end (no other worker can claim them before), then ids
-- RETURNS  flat list: id, type, at, since, attempts, subject, batch, snapshot, spec_or_url, id, …
--          spec_or_url is the job's spec or the batch's callback URL; '' = the job is purged, or its batch has no URL.
local now, claim_end = ARGV[1], ARGV[2]
local FIELDS = { 'type', 'at', 'since', 'attempts', 'subject', 'batch', 'snapshot' }
local claimed = {}
for a = 3, #ARGV do
  local id = ARGV[a]
  local _, is_claimable = end_lease('callbacks', id, now)
  if is_claimable then
    redis.call('ZADD', key('callbacks:pending'), claim_end, id)
    local record = redis.call('HMGET', key('callback:' .. id), unpack(FIELDS))
    local subject = record[5] or ''
    local spec_or_url = redis.call('HGET', key(subject), subject:sub(1, 4) == 'job:' and 'spec' or 'callback_url')
    claimed[#claimed + 1] = id
    for f = 1, #FIELDS do claimed[#claimed + 1] = record[f] or '' end
    claimed[#claimed + 1] = spec_or_url or ''
  end
end
return claimed
