-- archive_retry: archive the songs of jobs that failed to be archived or never were scheduled for it; make pending ones due.
-- KEYS  root
-- ARGV  now, then ids
-- RETURNS  for each id 1 = it is pending, 0 = it has no songs, or they are archived
local now, is_pending = ARGV[1], {}
for a = 2, #ARGV do
  local id = ARGV[a]
  local songs, state, holder = unpack(redis.call('HMGET', JOB .. id, 'clips', 'archive', 'archive.holder'))
  local is_archivable = songs and state ~= 'done'
  is_pending[#is_pending + 1] = is_archivable and 1 or 0
  -- A claimed job stays with its worker, or is due again when the claim expires.
  if is_archivable and not (state == 'pending' and holder) then schedule_archiving(id, now) end
end
return is_pending
