-- sift: a page of a sorted set of jobs, and which of them may be those that are looked for.
-- KEYS  root
-- ARGV  the set, 1 = highest score first, score ('' = from the beginning) and member that came last, most to look
--       at, what is looked for (JSON): state, stage, batch, code, since (Unix seconds), parts (texts that all stand
--       somewhere in the spec), called (is: the whole of a field that upstream gave; part: a text in the spec)
-- RETURNS  how many were looked at, the last of them and its score, then the members and scores that fit. What
--       stands in a spec may stand there for something else: the caller reads those jobs.
-- Each test takes some fields of the record, and only those that are asked for are read: there are many jobs.
local wanted, fields, tests = cjson.decode(ARGV[6]), { 'created' }, {}

local function test(names, holds)
  local first = #fields + 1
  for _, name in ipairs(names) do fields[#fields + 1] = name end
  tests[#tests + 1] = function(record) return holds(unpack(record, first, first + #names - 1)) end
end

for _, name in ipairs({ 'state', 'stage', 'batch' }) do
  if wanted[name] then
    test({ name }, function(value) return value == wanted[name] end)
  end
end
if wanted.code then
  test({ 'failure' }, function(failure) return failure and cjson.decode(failure).code == wanted.code end)
end
if wanted.since then
  test({ 'updated', 'created' }, function(updated, created) return tonumber(updated or created) >= wanted.since end)
end
for _, part in ipairs(wanted.parts or {}) do
  test({ 'spec' }, function(spec) return string.find(spec, part, 1, true) end)
end
if wanted.called then
  local is, part = wanted.called.is, wanted.called.part
  test({ 'persona_id', 'voice_name', 'orders', 'spec' }, function(persona, name, orders, spec)
    return persona == is or name == is or has_task(orders, is) or string.find(spec, part, 1, true)
  end)
end

local function fits(record)
  for _, holds in ipairs(tests) do
    if not (record[1] and holds(record)) then return false end
  end
  return true
end

local page = page_of(key(ARGV[1]), ARGV[2] == '1', ARGV[3], ARGV[4], tonumber(ARGV[5]))
local found = { #page / 2, page[#page - 1] or '', page[#page] or '' }
for i = 1, #page, 2 do
  if #tests == 0 or fits(redis.call('HMGET', root .. 'job:' .. page[i], unpack(fields))) then
    found[#found + 1], found[#found + 2] = page[i], page[i + 1]
  end
end
return found
