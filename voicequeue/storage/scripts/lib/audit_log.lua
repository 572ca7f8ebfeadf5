-- The audit log: who changed what. A script that changes something for a caller gets the entry (JSON: fields, a list of
-- names and values; counts = count the jobs). It is appended with the first change, and once, also if the script runs again.
local append_audit_entry
do
  local entry = audit_argument and cjson.decode(audit_argument)
  local LATEST = 64 -- entries among which one of the same change is looked for

  local function number_of_changes(outcome)
    local count = 0
    for _, item in ipairs(type(outcome) == 'table' and outcome or { outcome }) do
      if item and item ~= 0 and item ~= '' then count = count + 1 end
    end
    return count
  end

  local function is_appended(id)
    for _, latest in ipairs(redis.call('XREVRANGE', key('audit_log'), '+', '-', 'COUNT', LATEST)) do
      if latest[2][2] == id then return true end
    end
    return false
  end

  append_audit_entry = function(outcome)
    local count = entry and number_of_changes(outcome) or 0
    if count == 0 or is_appended(entry.fields[2]) then return end
    if entry.counts and type(outcome) == 'table' then
      entry.fields[#entry.fields + 1] = 'jobs'
      entry.fields[#entry.fields + 1] = count
    end
    redis.call('XADD', key('audit_log'), '*', unpack(entry.fields))
  end
end
