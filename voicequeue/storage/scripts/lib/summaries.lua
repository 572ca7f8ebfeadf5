-- Summaries of ranges of indexes, by which a search by text passes over jobs that it cannot find. A summary is written by
-- voicequeue/storage/summaries.py; it stays true while no job joins its range, and no searched field of its jobs changes.

-- An entry of summaries:<index>: the version of its tokens (voicequeue/domain/token_filter.py), the lowest and the highest
-- score, the number of jobs and the time when it was started, its id.
local SUMMARY = '^1 (%S+) (%S+) (%d+) (%S+) (%x+)$'

-- Its filter is SUMMARY_FILTER .. id.
local SUMMARY_FILTER = key('summary:')

-- Return the summary of an entry; nil if its version is another one.
local function read_summary(entry)
  local low, high, count, since, id = entry:match(SUMMARY)
  if not id then return nil end
  return { entry = entry, low = low, high = high, count = tonumber(count), since = tonumber(since), key = SUMMARY_FILTER .. id }
end

-- Delete a summary; return 1, or 0 if there is none.
local function delete_summary(index, entry)
  redis.call('DEL', SUMMARY_FILTER .. (entry:match('%x+$') or ''))
  return redis.call('ZREM', key('summaries:' .. index), entry)
end

-- Delete the summary of the range that has a score, also one that is being written, because a job joins this range or
-- changes there.
local function drop_summary(index, score)
  local entry = redis.call('ZREVRANGEBYSCORE', key('summaries:' .. index), score, '-inf', 'LIMIT', 0, 1)[1]
  local summary = entry and read_summary(entry)
  if entry and not (summary and tonumber(summary.high) < tonumber(score)) then delete_summary(index, entry) end
end

-- Return whether this call was made so long ago that summaries may cover its time: it was repeated until Redis answered.
local LATE_S = 60
local is_late
local function is_late_call(now)
  if is_late == nil then is_late = redis.call('TIME')[1] - now > LATE_S end
  return is_late
end

-- Delete the summaries of the ranges that have one of these scores (score, id, score, id, …).
local function drop_summaries(index, jobs)
  for j = 1, #jobs, 2 do drop_summary(index, jobs[j]) end
end

-- Delete the summary of the range that has a job now.
local function drop_summary_of(id)
  local state, batch, rank = unpack(redis.call('HMGET', JOB .. id, 'state', 'batch', 'rank'))
  if not state then return end
  local index = state == 'queued' and 'lane:' .. rank .. ':' .. (batch or '') or index_of('state:' .. state, namespace_of(batch))
  local score = redis.call('ZSCORE', key(index), id)
  if score then drop_summary(index, score) end
end

-- Delete all summaries of an index.
local function delete_summaries(index)
  for _, entry in ipairs(redis.call('ZRANGE', key('summaries:' .. index), 0, -1)) do delete_summary(index, entry) end
  redis.call('SREM', key('summarized'), index)
end

-- Return the highest score of the range that begins with a score and ends before another one, and the number of its jobs;
-- more than those of a full summary if the last ones have one score. nil: too many have the first score.
local function range_end(set, low, before, full)
  local high = redis.call('ZRANGEBYSCORE', set, low, before, 'WITHSCORES', 'LIMIT', full - 1, 1)[2]
    or redis.call('ZREVRANGEBYSCORE', set, before, low, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if redis.call('ZCOUNT', set, low, high) > 10 * full then
    high = redis.call('ZREVRANGEBYSCORE', set, '(' .. high, low, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  end
  return high, high and redis.call('ZCOUNT', set, low, high)
end

-- Return the lowest and the highest score of the first jobs after a bound and before another one, and their number; nil if
-- there are too few. The small summaries before them (`left`, and its `left`) are joined with what has become as large.
local function range_to_summarize(index, after, before, left, full, smallest)
  local set, low = key(index), nil
  local number = redis.call('ZCOUNT', set, after, before)
  if number == 0 then return nil end
  while left and left.is_complete and number >= left.members and number + left.members <= full do
    delete_summary(index, left.entry)
    low = left.low
    left, number = left.left, redis.call('ZCOUNT', set, low, before)
  end
  if not low and number < smallest then return nil end
  low = low or redis.call('ZRANGEBYSCORE', set, after, before, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  local high, count = range_end(set, low, before, full)
  if not high then return range_to_summarize(index, '(' .. low, before, nil, full, smallest) end
  return low, high, count
end
