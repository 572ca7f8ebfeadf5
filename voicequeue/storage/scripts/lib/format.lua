-- The format of the queue: voicequeue/domain/store_format.py. FORMAT_KNOWN is the format of the release of this script, and
-- FORMAT_OLDEST_READER the oldest one that understands what it writes.

-- Return a number of the stamp; nil if it is missing or damaged.
local function format_number(text)
  return text and string.find(text, '^%d%d?%d?%d?$') and tonumber(text) or nil
end

-- Return an error if the queue needs a newer release than that of this script; nil if it may be used. It stops programs
-- that were running when the queue was upgraded.
local function format_refusal()
  local oldest_reader = format_number(redis.call('HGET', key('format'), 'oldest_reader'))
  if oldest_reader and oldest_reader > FORMAT_KNOWN then
    return redis.error_reply('FORMAT ' .. oldest_reader)
  end
end

-- Stamp a queue without a stamp: a new one with the format of this release, one with jobs with the format before stamps.
local function stamp_format()
  if redis.call('EXISTS', key('format')) == 1 then return end
  local is_new = redis.call('EXISTS', key('events'), key('counters')) == 0
  redis.call('HSET', key('format'), 'version', is_new and FORMAT_KNOWN or 1,
    'oldest_reader', is_new and FORMAT_OLDEST_READER or 1)
end
