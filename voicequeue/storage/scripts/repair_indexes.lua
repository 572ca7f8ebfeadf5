-- repair_indexes: add ids to indexes or remove them, each if its record still has the version this was decided for.
-- KEYS  root
-- ARGV  now, then for each: id, version ('' = there is no record), index, 1 = it belongs there or 0
-- RETURNS  for each 1 = repaired, 0 = the version has changed, or the index was right
local repaired = {}
for a = 2, #ARGV, 4 do
  local id, version, index, belongs = unpack(ARGV, a, a + 3)
  local is_unchanged = (redis.call('HGET', JOB .. id, 'version') or '') == version
  repaired[#repaired + 1] = is_unchanged and repair_index(index, id, tonumber(belongs), ARGV[1]) or 0
end
return repaired
