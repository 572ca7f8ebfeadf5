-- repair_lanes: give each batch with queued jobs of a priority a turn, and no other batch.
-- KEYS  root
-- ARGV  rank, name of a batch ('' = jobs without a batch), rank, name, …
-- RETURNS  for each 1 = repaired, 0 = it was right
local repaired = {}
for a = 1, #ARGV, 2 do
  local rank, batch = ARGV[a], ARGV[a + 1]
  local has_lane = redis.call('EXISTS', lane_key(rank, batch)) == 1
  local has_turn = redis.call('ZSCORE', key('lanes:' .. rank), batch) and true or false
  repaired[#repaired + 1] = has_lane ~= has_turn and 1 or 0
  if has_lane and not has_turn then give_turn(rank, batch) end
  if has_turn and not has_lane then redis.call('ZREM', key('lanes:' .. rank), batch) end
end
wake_dispatcher()
return repaired
