-- erase_voices: delete voices for all jobs that share them.
-- KEYS  root
-- ARGV  now, then voices
-- RETURNS  how many
for a = 2, #ARGV do erase_voice(ARGV[a], '', ARGV[1]) end
return #ARGV - 1
