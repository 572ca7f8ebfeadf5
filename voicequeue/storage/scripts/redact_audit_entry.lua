-- redact_audit_entry: replace an entry of the audit log; nothing if another process has replaced it.
-- KEYS  root
-- ARGV  its id, then the fields and values of the new entry
-- RETURNS  whether it was replaced
if redis.call('XDEL', key('audit_log'), ARGV[1]) == 0 then return 0 end
redis.call('XADD', key('audit_log'), '*', unpack(ARGV, 2))
return 1
