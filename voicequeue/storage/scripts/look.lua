-- look: counters, and the records of all jobs that have moved, or were purged, since an entry of each of these streams,
-- as of one moment.
-- KEYS  root
-- ARGV  id of that event, of that purge ('0-0' = there was none), most of each to follow, number of fields, fields of a
--       record, then names of counters
-- RETURNS  {ids of the last event and purge followed, 1 = that was all, {id, {field, …}, …} of those jobs,
--          {batches that got new jobs}, how often counters were corrected, {{field, amount, …} of each counters}};
--          nil = such an entry is gone, and others may be with it
local most, fields = tonumber(ARGV[3]), tonumber(ARGV[4])
local moved, grown, told, is_all = {}, {}, { [''] = true }, true

-- Gives the id of the last entry that was followed; nil where those after the known one cannot all be there.
local function follow(stream, known)
  local entries = redis.call('XRANGE', key(stream), known, '+', 'COUNT', most)
  if known ~= '0-0' and (not entries[1] or entries[1][1] ~= known) then return nil end
  -- There was none then, and by now the first ones may have been trimmed.
  if known == '0-0' and redis.call('XLEN', key(stream)) >= EVENTS_KEPT then return nil end
  for i = known == '0-0' and 1 or 2, #entries do
    local id, batch = entries[i][2][2], entries[i][2][4] -- in the order that they were announced in
    if not told[id] then
      told[id] = true
      moved[#moved + 1] = id
      moved[#moved + 1] = redis.call('HMGET', key('job:' .. id), unpack(ARGV, 5, 4 + fields))
    end
    if id == '' and batch ~= '' then grown[#grown + 1] = batch end
  end
  is_all = is_all and #entries < most
  return #entries > 0 and entries[#entries][1] or known
end

local event, purged = follow('events', ARGV[1]), follow('purged', ARGV[2])
if not (event and purged) then return nil end

local counters = {}
for a = 5 + fields, #ARGV do counters[#counters + 1] = redis.call('HGETALL', key(ARGV[a])) end
local corrections = redis.call('HGET', key('counters'), 'corrections') or '0'
return { event, purged, is_all and 1 or 0, moved, grown, corrections, counters }
