-- A page of a sorted set, from where the page before it ended; whole also where members come and go meanwhile.
-- `falling`: the highest score first; `score` ('' = from the beginning) and `member` came last.
-- Gives member, score, member, score, …
local function page_of(set, falling, score, member, count)
  local function at(place) return redis.call(falling and 'ZREVRANGE' or 'ZRANGE', set, place, place)[1] end

  -- Members of one score stand by their letters.
  local function is_before(other)
    if falling then return other >= member end
    return other <= member
  end

  -- How many members stand before those of that score, and how many there are up to the one that came last.
  local function passed()
    local low = redis.call('ZCOUNT', set, falling and '(' .. score or '-inf', falling and '+inf' or '(' .. score)
    local high = low + redis.call('ZCOUNT', set, score, score)
    while low < high do
      local middle = math.floor((low + high) / 2)
      if is_before(at(middle)) then low = middle + 1 else high = middle end
    end
    return low
  end

  local from = score == '' and 0 or passed()
  return redis.call(falling and 'ZREVRANGE' or 'ZRANGE', set, from, from + count - 1, 'WITHSCORES')
end
