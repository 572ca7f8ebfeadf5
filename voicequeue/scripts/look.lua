-- look: counters, and the records of all jobs that have moved since an event, as of one moment.
-- KEYS  root
-- ARGV  id of that event ('0-0' = there was none), most events to follow, number of fields, fields of a record,
--       then names of counters
-- RETURNS  {id of the last event followed, 1 = that was all, {id, {field, …}, …} of the jobs that moved,
--          {batches that got new jobs}, how often counters were corrected, {{field, amount, …} of each counters}};
--          nil = the event is gone, and others may be with it
local known, most, fields = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local events = redis.call('XRANGE', key('events'), known, '+', 'COUNT', most)
if known ~= '0-0' and (not events[1] or events[1][1] ~= known) then return nil end

local moved, grown, told = {}, {}, { [''] = true }
for i = known == '0-0' and 1 or 2, #events do
  local id, batch = events[i][2][2], events[i][2][4] -- in the order that they were announced in
  if not told[id] then
    told[id] = true
    moved[#moved + 1] = id
    moved[#moved + 1] = redis.call('HMGET', key('job:' .. id), unpack(ARGV, 4, 3 + fields))
  end
  if id == '' and batch ~= '' then grown[#grown + 1] = batch end
end

local counters = {}
for a = 4 + fields, #ARGV do counters[#counters + 1] = redis.call('HGETALL', key(ARGV[a])) end
local corrections = redis.call('HGET', key('counters'), 'corrections') or '0'
local last = #events > 0 and events[#events][1] or known
return { last, #events < most and 1 or 0, moved, grown, corrections, counters }
