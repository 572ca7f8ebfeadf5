-- Tests of job records by their fields, for scripts/filter_page.lua. Each function returns a test.

-- The job has failed with a code.
local function failed_with(code)
  return function(failure) return failure and cjson.decode(failure).code == code end
end

-- The job last changed at or after the first of two times and before the second; nil: no limit.
local function changed_between(since, before)
  return function(updated, created)
    local changed = tonumber(updated or created)
    return changed >= (since or changed) and changed < (before or math.huge)
  end
end

-- The job came from a source, such as http:shop, or from any of its kind, such as http.
local function came_from(wanted)
  return function(source) return source and (source == wanted or string.match(source, '^[^:]*') == wanted) end
end
