-- read_changes: read counters, and the records of all jobs that have changed or were purged since the given entries
-- of the two streams, as of one moment.
-- KEYS  root
-- ARGV  id of the last event, of the last purge ('0-0' = there was none), maximum number of each to follow, number of
--       record fields, these fields, then names of counters
-- RETURNS  {ids of the last event and purge followed, 1 = there are no more, {id, {field, …}, …} of those jobs,
--          {batches with new jobs ('' = jobs without a batch)}, number of corrections of counters, first day of which the
--          counters are complete ('' = none), {{field, amount, …} of each counters}};
--          nil = such an entry is gone, and others may be missing
local max, fields = tonumber(ARGV[3]), tonumber(ARGV[4])
local changed, grown, seen, is_complete = {}, {}, { [''] = true }, true

-- Return the id of the last entry that was followed; nil if entries after the known one may be missing.
local function follow(stream, known_id)
  local entries = redis.call('XRANGE', key(stream), known_id, '+', 'COUNT', max)
  if known_id ~= '0-0' and (not entries[1] or entries[1][1] ~= known_id) then return nil end
  -- The stream was empty, and its first entries may have been trimmed since.
  if known_id == '0-0' and redis.call('XLEN', key(stream)) >= EVENTS_KEPT then return nil end
  for i = known_id == '0-0' and 1 or 2, #entries do
    local id, batch = entries[i][2][2], entries[i][2][4] -- in the order in which add_event writes them
    if not seen[id] then
      seen[id] = true
      changed[#changed + 1] = id
      changed[#changed + 1] = redis.call('HMGET', JOB .. id, unpack(ARGV, 5, 4 + fields))
    end
    if id == '' then grown[#grown + 1] = batch end
  end
  is_complete = is_complete and #entries < max
  return #entries > 0 and entries[#entries][1] or known_id
end

local event, purged = follow('events', ARGV[1]), follow('purged', ARGV[2])
if not (event and purged) then return nil end

local counters = {}
for a = 5 + fields, #ARGV do counters[#counters + 1] = redis.call('HGETALL', key(ARGV[a])) end
local marks = redis.call('HMGET', key('counters'), 'corrections', 'days_from')
local days_from = marks[2] or (redis.call('EXISTS', key('counters')) == 0 and 0) or ''
return { event, purged, is_complete and 1 or 0, changed, grown, marks[1] or '0', tostring(days_from), counters }
