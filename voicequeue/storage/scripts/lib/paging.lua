-- Return a page of a sorted set after the end of the previous page; complete for members that stay, even if others
-- are added or removed in between.
-- `is_descending`: highest score first; `score` ('' = from the start) and `member` are the last of the previous page.
-- Returns member, score, member, score, …
local function page_of(set, is_descending, score, member, count)
  local function at(position) return redis.call(is_descending and 'ZREVRANGE' or 'ZRANGE', set, position, position)[1] end

  -- Members with the same score are in lexicographical order.
  local function is_before(other)
    if is_descending then return other >= member end
    return other <= member
  end

  -- Return how many members precede the position after the previous page: a binary search among those with its last
  -- score.
  local function count_before()
    local low = redis.call('ZCOUNT', set, is_descending and '(' .. score or '-inf', is_descending and '+inf' or '(' .. score)
    local high = low + redis.call('ZCOUNT', set, score, score)
    while low < high do
      local middle = math.floor((low + high) / 2)
      if is_before(at(middle)) then low = middle + 1 else high = middle end
    end
    return low
  end

  local from = score == '' and 0 or count_before()
  return redis.call(is_descending and 'ZREVRANGE' or 'ZRANGE', set, from, from + count - 1, 'WITHSCORES')
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
