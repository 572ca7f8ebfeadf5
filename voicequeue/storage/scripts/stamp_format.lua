-- stamp_format: stamp a queue that has no stamp with its format, and return the format.
-- KEYS  root
-- ARGV  none
-- RETURNS  version, oldest reader
stamp_format()
return redis.call('HMGET', key('format'), 'version', 'oldest_reader')
