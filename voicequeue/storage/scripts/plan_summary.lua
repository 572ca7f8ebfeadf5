-- plan_summary: start the summary of the first range of a part of an index that needs one. Delete those that are of no use:
-- whose jobs have mostly left, that a job has joined unseen, that are old, of a later time than now, or were not completed.
-- KEYS  root
-- ARGV  the index, bounds of its part, the limit (a score behind which jobs join), where to continue ('' = from the start),
--       now, id of the new summary, jobs of a full summary, jobs of the smallest one, time until one is old and time to
--       complete one (seconds)
-- RETURNS  nothing if no range needs one; else where to continue, and if a summary was started, the lowest and the highest
--          score of its range and the number of its jobs
local index, first, last, limit, from, now, id = unpack(ARGV)
local full, smallest, old_s, unfinished_s = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local list, page = key('summaries:' .. index), 100

local function is_useful(summary)
  summary.members = redis.call('ZCOUNT', key(index), summary.low, summary.high)
  summary.is_complete = redis.call('EXISTS', summary.key) == 1
  local age = now - summary.since
  return age >= 0 and age < (summary.is_complete and old_s or unfinished_s)
    and summary.members <= summary.count and summary.members * 4 > summary.count
end

local function start(after, before, left)
  local low, high, count = range_to_summarize(index, after, before, left, full, smallest)
  if not low then return nil end
  redis.call('ZADD', list, low, table.concat({ 1, low, high, count, now, id }, ' '))
  redis.call('EXPIRE', list, 2 * old_s)
  redis.call('SADD', key('summarized'), index)
  return { low, low, high, count }
end

local after, left = from == '' and first or from, nil
local entries = redis.call('ZRANGEBYSCORE', list, after, last, 'LIMIT', 0, page)
for _, entry in ipairs(entries) do
  local summary = read_summary(entry)
  if summary and is_useful(summary) then
    local range = start(after, '(' .. summary.low, left)
    if range then return range end
    summary.left, left, after = left, summary, '(' .. summary.high
  else
    delete_summary(index, entry)
    -- At once, so that not all old ones are deleted before the first of them is replaced.
    local is_replaced = summary and summary.is_complete and tonumber(summary.high) < tonumber(limit)
    local range = is_replaced and start(after, summary.high, left)
    if range then return range end
  end
end
if #entries == page then return { left and left.low or from == '' and first or from } end
local range = start(after, '(' .. limit, left)
if not range and redis.call('EXISTS', list) == 0 then redis.call('SREM', key('summarized'), index) end
return range or {}
