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

-- Return whether a filter of this size (bits) may hold all of these tokens. A token is a list of hashes, a filter a text of
-- seven bits in each byte (voicequeue/domain/token_filter.py).
local function holds_all(filter_key, size, tokens)
  for _, hashes in ipairs(tokens) do
    for _, hash in ipairs(hashes) do
      local bit = hash % size
      if redis.call('GETBIT', filter_key, bit + math.floor(bit / 7) + 1) == 0 then return false end
    end
  end
  return true
end

-- Return whether the filter of a summary may hold the tokens of one of the alternatives of each condition; also if there
-- is no filter (left).
local function may_hold(filter_key, conditions)
  local size = redis.call('STRLEN', filter_key) * 7
  for _, alternatives in ipairs(size > 0 and conditions or {}) do
    local is_met = false
    for _, tokens in ipairs(alternatives) do is_met = is_met or holds_all(filter_key, size, tokens) end
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

-- Return a function that returns the ranks of a range in an index, called for one range after the other: the first, and
-- one more than the last.
local function ranks_of_ranges(set, is_descending)
  local edge, edge_rank = is_descending and '+inf' or '-inf', 0
  return function(low, high)
    local number = redis.call('ZCOUNT', set, low, high)
    local first
    if is_descending then
      first, edge = edge_rank + redis.call('ZCOUNT', set, '(' .. high, edge), '(' .. low
    else
      first, edge = edge_rank + redis.call('ZCOUNT', set, edge, '(' .. low), '(' .. high
    end
    edge_rank = first + number
    return first, edge_rank
  end
end

-- Call `examine` with up to `count` members of an index, and their scores, after the end of the previous page. With
-- conditions (lists of alternatives, each a list of tokens), pass over the ranges that no job has joined since they were
-- summarized, and whose summary does not hold the tokens of an alternative of each condition. Returns how many members it
-- examined, the last one that it examined or passed over, its score, and whether that is the last of the index.
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
    local entries, ranks_of = entries_from(index, is_descending, score), ranks_of_ranges(set, is_descending)
    for _, entry in ipairs(entries) do
      local low, high, number, _, id = entry:match(SUMMARY)
      if examined == count then break end
      if low then
        local first, last = ranks_of(low, high)
        examine_up_to(first)
        local is_passed = examined < count and last - first <= tonumber(number) and not may_hold(SUMMARY_FILTER .. id, conditions)
        if is_passed then rank = math.max(rank, last) end
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
