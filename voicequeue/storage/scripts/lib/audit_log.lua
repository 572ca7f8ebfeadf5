-- The audit log: who changed what. A script that changes something for a caller gets the entry (JSON: fields, a list of
-- names and values; counts = count the jobs). It is appended with the first change, and once, also if the script runs again.

local function number_of_changes(outcome)
  local count = 0
  for _, item in ipairs(type(outcome) == 'table' and outcome or { outcome }) do
    if item and item ~= 0 and item ~= '' then count = count + 1 end
  end
  return count
end

-- Return whether the latest entries have one of the same change.
local ENTRIES_COMPARED = 64
local function is_appended(id)
  for _, latest in ipairs(redis.call('XREVRANGE', key('audit_log'), '+', '-', 'COUNT', ENTRIES_COMPARED)) do
    if latest[2][2] == id then return true end
  end
  return false
end

local function append_audit_entry(outcome)
  local entry, count = cjson.decode(audit_argument), number_of_changes(outcome)
  if count == 0 or is_appended(entry.fields[2]) then return end
  if entry.counts and type(outcome) == 'table' then
    entry.fields[#entry.fields + 1] = 'jobs'
    entry.fields[#entry.fields + 1] = count
  end
  redis.call('XADD', key('audit_log'), '*', unpack(entry.fields))
end
