-- refetch: have the songs of jobs archived that were given up, or never meant to be; try pending ones now.
-- KEYS  root
-- ARGV  now, then ids
-- RETURNS  for each 1 = it is pending, 0 = it has no songs, or they are archived
local now, found = ARGV[1], {}
for a = 2, #ARGV do
  local id = ARGV[a]
  local songs, stands, holder = unpack(redis.call('HMGET', key('job:' .. id), 'clips', 'archive', 'archive.holder'))
  local is_meant = songs and stands ~= 'done'
  found[#found + 1] = is_meant and 1 or 0
  -- One that somebody is at goes on, or is due again when its claim has run out.
  if is_meant and not (stands == 'pending' and holder) then to_be_archived(id, now) end
end
return found
