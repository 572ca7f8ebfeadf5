-- mend: put ids into indexes or take them out, each if its record still stands at the version that this was
-- decided for.
-- KEYS  root
-- ARGV  now, then for each: id, v ('' = there is no record), index, 1 = it belongs there or 0
-- RETURNS  for each 1 = mended, 0 = the job had moved on, or it was right already
local now = ARGV[1]
local mended = {}
for a = 2, #ARGV, 4 do
  local id, v, index, belongs = unpack(ARGV, a, a + 3)
  local done = 0
  if (redis.call('HGET', key('job:' .. id), 'v') or '') == v then
    if belongs == '1' then
      done = redis.call('ZADD', key(index), 'NX', score_in(index, id, now), id)
    else
      done = redis.call('ZREM', key(index), id)
    end
  end
  mended[#mended + 1] = done
end
return mended
