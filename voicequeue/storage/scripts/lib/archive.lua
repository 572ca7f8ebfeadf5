-- The archive: copies of songs, made before upstream's links expire. A job's archive state is its field `archive`.

local ARCHIVE_INDEX = { pending = true, failed = true }

-- Set the job's archive state: pending (due `at`), done, or failed (`at` that time).
local function set_archive_state(id, state, at)
  redis.call('HSET', JOB .. id, 'archive', state)
  for index in pairs(ARCHIVE_INDEX) do
    if index == state then
      redis.call('ZADD', key('archive:' .. index), at, id)
    else
      redis.call('ZREM', key('archive:' .. index), id)
    end
  end
  if state ~= 'pending' then redis.call('ZREM', key('archive:leased'), id) end
end

-- Schedule the job's songs for archiving.
local function schedule_archiving(id, now)
  redis.call('HSET', JOB .. id, 'archive.since', now, 'archive.attempts', 0)
  redis.call('HDEL', JOB .. id, 'archive.reason', 'archive.holder')
  set_archive_state(id, 'pending', now)
end
