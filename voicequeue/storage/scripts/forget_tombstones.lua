-- forget_tombstones: allow erased ids and recordings to be ordered again.
-- KEYS  root
-- ARGV  their keyed hashes
-- RETURNS  how many there were
return redis.call('HDEL', key('tombstones'), unpack(ARGV))
