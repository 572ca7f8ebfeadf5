-- admit: take jobs from the head of the backlog into flight, as many as there are slots.
-- KEYS  root
-- ARGV  now, in-flight limit, most to take in this call
-- RETURNS  flat list: id, stage, id, stage, …
local now = ARGV[1]
if gate_closed(now) then return {} end
local free = math.min(tonumber(ARGV[2]) - redis.call('ZCARD', key('flight')), tonumber(ARGV[3]))
if free <= 0 then return {} end

local admitted = {}
for _, id in ipairs(redis.call('ZRANGE', key('backlog'), 0, free - 1)) do
  local stage = redis.call('HGET', key('job:' .. id), 'stage')
  move(id, { to = 'admitted', stage = stage, due = now }, now)
  admitted[#admitted + 1] = id
  admitted[#admitted + 1] = stage
end
return admitted
