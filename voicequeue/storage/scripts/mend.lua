-- mend: put ids into indexes or take them out, each if its record still stands at the version that this was
-- decided for.
-- KEYS  root
-- ARGV  now, then for each: id, v ('' = there is no record), index, 1 = it belongs there or 0
-- RETURNS  for each 1 = mended, 0 = the job had moved on, or it was right already
local mended = {}
for a = 2, #ARGV, 4 do
  local id, v, index, belongs = unpack(ARGV, a, a + 3)
  local same = (redis.call('HGET', key('job:' .. id), 'v') or '') == v
  mended[#mended + 1] = same and mend(index, id, tonumber(belongs), ARGV[1]) or 0
end
return mended
