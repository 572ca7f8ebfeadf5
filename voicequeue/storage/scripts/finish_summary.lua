-- finish_summary: write the filter of a summary that was started, unless it was deleted meanwhile.
-- KEYS  root
-- ARGV  the index, the entry of its summaries, the filter (voicequeue/domain/token_filter.py), time until it expires (seconds)
-- RETURNS  1 = written, 0 = the summary was deleted
local index, entry, filter, ttl_s = unpack(ARGV)
if not redis.call('ZSCORE', key('summaries:' .. index), entry) then return 0 end
redis.call('SET', read_summary(entry).key, filter, 'EX', ttl_s)
return 1
