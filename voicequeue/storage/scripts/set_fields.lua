-- set_fields: set fields of one hash that no index depends on.
-- KEYS  root
-- ARGV  name of the hash, then field, value ('' = delete it), field, value, …
-- RETURNS  number of fields that changed
return set_fields(key(ARGV[1]), ARGV, 2)
