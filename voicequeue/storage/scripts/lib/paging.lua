-- Return how many members of a sorted set precede the position after the end of the previous page.
-- `is_descending`: highest score first; `score` ('' = from the start) and `member` are the last of the previous page.
local function count_before(set, is_descending, score, member)
  if score == '' then return 0 end
  local function at(position) return redis.call(is_descending and 'ZREVRANGE' or 'ZRANGE', set, position, position)[1] end

  -- Members with the same score are in lexicographical order.
  local function is_before(other)
    if is_descending then return other >= member end
    return other <= member
  end

  -- A binary search among those with the last score.
  local low = redis.call('ZCOUNT', set, is_descending and '(' .. score or '-inf', is_descending and '+inf' or '(' .. score)
  local high = low + redis.call('ZCOUNT', set, score, score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_before(at(middle)) then low = middle + 1 else high = middle end
  end
  return low
end

-- Return `count` members of a sorted set and their scores, from a position on: member, score, member, score, …
local function members_from(set, is_descending, from, count)
  return redis.call(is_descending and 'ZREVRANGE' or 'ZRANGE', set, from, from + count - 1, 'WITHSCORES')
end

-- Return a page of a sorted set after the end of the previous page; complete for members that stay, even if others
-- are added or removed in between.
local function page_of(set, is_descending, score, member, count)
  return members_from(set, is_descending, count_before(set, is_descending, score, member), count)
end

-- Return whether the filter of a summary may hold one of the alternatives of each condition. A condition is a list of
-- alternatives, an alternative a list of tokens that all must occur, a token a list of hashes, a filter a text of seven
-- bits in each byte (voicequeue/domain/token_filter.py).
local function may_hold(filter_key, size, conditions)
  local function has_all(tokens)
    for _, hashes in ipairs(tokens) do
      for _, hash in ipairs(hashes) do
        local bit = hash % size
        if redis.call('GETBIT', filter_key, bit + math.floor(bit / 7) + 1) == 0 then return false end
      end
    end
    return true
  end

  for _, alternatives in ipairs(conditions) do
    local is_met = false
    for _, tokens in ipairs(alternatives) do is_met = is_met or has_all(tokens) end
    if not is_met then return false end
  end
  return true
end

-- The most summaries that one call looks at.
local SUMMARIES_MAX = 500

-- Return the entries of the summaries of an index that do not end before a score, in this order.
local function entries_from(index, is_descending, score)
  local list = key('summaries:' .. index)
  if is_descending then
    return redis.call('ZREVRANGEBYSCORE', list, score == '' and '+inf' or score, '-inf', 'LIMIT', 0, SUMMARIES_MAX)
  end
  local first = score == '' and 0 or math.max(0, redis.call('ZCOUNT', list, '-inf', score) - 1)
  return redis.call('ZRANGE', list, first, first + SUMMARIES_MAX - 1)
end

-- Return a function that returns the ranks of a summary in an index, the first and one more than the last, and whether
-- its jobs can be passed over: it is complete, no job has joined it, and it holds none that meets the conditions.
local function looks_into(set, is_descending, conditions)
  return function(summary)
    local first, last
    if is_descending then
      first, last = redis.call('ZCOUNT', set, '(' .. summary.high, '+inf'), redis.call('ZCOUNT', set, summary.low, '+inf')
    else
      first, last = redis.call('ZCOUNT', set, '-inf', '(' .. summary.low), redis.call('ZCOUNT', set, '-inf', summary.high)
    end
    local size = last - first <= summary.count and redis.call('STRLEN', summary.key) * 7 or 0
    return first, last, size > 0 and not may_hold(summary.key, size, conditions)
  end
end

-- Call `examine` with up to `count` members of an index, and their scores, after the end of the previous page; without
-- those of ranges whose summaries do not meet the conditions (nil: all). Returns how many it examined, the last member
-- that it examined or passed over, its score, and whether that is the last of the index.
local function examine_page(index, is_descending, score, member, count, conditions, examine)
  local set, examined, is_interrupted = key(index), 0, false
  local rank, total = count_before(set, is_descending, score, member), redis.call('ZCARD', set)
  local start = rank

  local function examine_up_to(last)
    local number = math.min(last - rank, count - examined)
    if number <= 0 then return end
    local page = members_from(set, is_descending, rank, number)
    for i = 1, #page, 2 do examine(page[i], page[i + 1]) end
    rank, examined = rank + number, examined + number
  end

  if conditions then
    local entries, look_into = entries_from(index, is_descending, score), looks_into(set, is_descending, conditions)
    for _, entry in ipairs(entries) do
      local summary = read_summary(entry)
      if examined == count then break end
      if summary then
        local first, last, is_passed = look_into(summary)
        examine_up_to(first)
        if is_passed and examined < count then rank = math.max(rank, last) end
      end
    end
    is_interrupted = #entries == SUMMARIES_MAX and rank > start
  end
  if not is_interrupted then examine_up_to(total) end
  local last = rank > 0 and members_from(set, is_descending, rank - 1, 1) or { '', '' }
  return examined, last[1], last[2], rank >= total
end

-- Return a function that returns whether a job has one of these recordings.
local function names_recording(recordings)
  local wanted = {}
  for _, name in ipairs(recordings) do wanted[name] = true end
  return function(spec, batch, sha256)
    for _, name in ipairs(recordings_of(batch, cjson.decode(spec).audio_url, sha256)) do
      if wanted[name] then return true end
    end
    return false
  end
end
