-- filter_page: read a page of a sorted set of jobs and return those that may match a filter.
-- KEYS  root
-- ARGV  the set, 1 = highest score first, score ('' = from the start) and member of the last job of the previous page,
--       maximum number to examine, the filter (JSON): state, stage, batch, code, since and until (Unix seconds),
--       source (all of it, or what is before its colon), parts (texts that all occur in the spec), search
--       (lib/search.lua), conditions (jobs of a range whose summary does not meet them are passed over: lib/paging.lua),
--       recordings (ids of voices by URL or hash: with one of these recordings)
-- RETURNS  number of examined jobs, 1 = the page ends with the last of the set, the last job that was examined or passed
--          over and its score, then matching members and scores. A text may occur in a spec with another meaning: the
--          caller checks the jobs.
-- Each test reads some fields of the record; only the fields in use are read, because there are many jobs.
local filter, fields, tests = cjson.decode(ARGV[6]), { 'created' }, {}

local function add_test(names, predicate)
  local first = #fields + 1
  for _, name in ipairs(names) do fields[#fields + 1] = name end
  tests[#tests + 1] = function(record) return predicate(unpack(record, first, first + #names - 1)) end
end

for _, name in ipairs({ 'state', 'stage', 'batch' }) do
  if filter[name] then add_test({ name }, function(value) return value == filter[name] end) end
end
if filter.code then add_test({ 'failure' }, failed_with(filter.code)) end
if filter.since or filter['until'] then
  add_test({ 'updated', 'created' }, changed_between(filter.since, filter['until']))
end
if filter.source then add_test({ 'source' }, came_from(filter.source)) end
for _, part in ipairs(filter.parts or {}) do
  add_test({ 'spec' }, function(spec) return string.find(spec, part, 1, true) end)
end
if filter.search then
  local first, may_find = #fields, text_search(filter.search)
  for _, name in ipairs(SEARCHED_FIELDS) do fields[#fields + 1] = name end
  tests[#tests + 1] = function(record) return may_find(record.id, unpack(record, first + 1, first + #SEARCHED_FIELDS)) end
end
if filter.recordings then add_test({ 'spec', 'batch', 'sha256' }, names_recording(filter.recordings)) end

local function matches(id)
  local record = redis.call('HMGET', root .. 'job:' .. id, unpack(fields))
  record.id = id
  for _, test in ipairs(tests) do
    if not (record[1] and test(record)) then return false end
  end
  return true
end

local results = { 0, 0, '', '' }
results[1], results[3], results[4], results[2] = examine_page(
  ARGV[1], ARGV[2] == '1', ARGV[3], ARGV[4], tonumber(ARGV[5]), filter.conditions, function(id, score)
    if #tests > 0 and not matches(id) then return end
    results[#results + 1], results[#results + 2] = id, score
  end)
results[2] = results[2] and 1 or 0
return results
