-- The archive: jobs whose songs are fetched before upstream's links die. Where one stands its field `archive` says.

local ARCHIVE_INDEX = { pending = true, failed = true }

-- The job stands so in the archive from now on: pending, to be looked after `at` that time; done; failed, `at` that time.
local function in_archive(id, how, at)
  redis.call('HSET', key('job:' .. id), 'archive', how)
  for index in pairs(ARCHIVE_INDEX) do
    if index == how then
      redis.call('ZADD', key('archive:' .. index), at, id)
    else
      redis.call('ZREM', key('archive:' .. index), id)
    end
  end
  if how ~= 'pending' then redis.call('ZREM', key('archive:out'), id) end
end

-- A job has songs that are to be kept.
local function to_be_archived(id, now)
  redis.call('HSET', key('job:' .. id), 'archive.since', now, 'archive.tries', 0)
  redis.call('HDEL', key('job:' .. id), 'archive.reason', 'archive.holder')
  in_archive(id, 'pending', now)
end
