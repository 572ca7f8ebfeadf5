-- relist: batches are listed that have jobs, and no others.
-- KEYS  root
-- ARGV  names of batches
-- RETURNS  for each 1 = mended, 0 = it was right already
local mended = {}
for i, batch in ipairs(ARGV) do
  local first = redis.call('ZRANGE', key('batch:' .. batch .. ':jobs'), 0, 0, 'WITHSCORES')
  if first[1] then
    mended[i] = redis.call('ZADD', key('batches'), 'NX', first[2], batch)
  else
    mended[i] = redis.call('ZREM', key('batches'), batch)
  end
end
return mended
