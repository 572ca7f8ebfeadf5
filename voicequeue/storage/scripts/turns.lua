-- turns: batches have a turn that have queued jobs of that priority, and no others.
-- KEYS  root
-- ARGV  rank, name of a batch ('' = jobs without one), rank, name, …
-- RETURNS  for each 1 = mended, 0 = it was right already
local mended = {}
for a = 1, #ARGV, 2 do
  local rank, batch = ARGV[a], ARGV[a + 1]
  local has_line = redis.call('EXISTS', line_key(rank, batch)) == 1
  local has_turn = redis.call('ZSCORE', key('turns:' .. rank), batch) and true or false
  mended[#mended + 1] = has_line ~= has_turn and 1 or 0
  if has_line and not has_turn then to_the_back(rank, batch, 'NX') end
  if has_turn and not has_line then redis.call('ZREM', key('turns:' .. rank), batch) end
end
wake()
return mended
