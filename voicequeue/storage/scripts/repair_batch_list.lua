-- repair_batch_list: list each batch that has jobs, and no other.
-- KEYS  root
-- ARGV  names of batches
-- RETURNS  for each 1 = repaired, 0 = the list was right
local repaired = {}
for i, batch in ipairs(ARGV) do
  local list = key(index_of('batches', namespace_of(batch)))
  local first = redis.call('ZRANGE', key('batch:' .. batch .. ':jobs'), 0, 0, 'WITHSCORES')
  if first[1] then
    repaired[i] = redis.call('ZADD', list, 'NX', first[2], batch)
  else
    repaired[i] = redis.call('ZREM', list, batch)
  end
end
return repaired
