-- complete_counting: note that the counters of all owners agree with the records; days are complete from the next one on.
-- KEYS  root
-- ARGV  now
-- RETURNS  1 = noted, 0 = it was
return counted_from() and 0 or redis.call('HSETNX', key('counters'), 'days_from', day_of(ARGV[1]) + 1)
