-- Tombstones of erased ids and recordings, and the consent that new jobs need.

-- Return the tombstone of an erased id or recording: its hash, keyed with the secret of the tombstones.
local function tombstone(secret, name) return redis.sha1hex(secret .. redis.sha1hex(secret .. name)) end

-- Return the names of the recording of a job as tombstones and voices have them, with its namespace.
local function recordings_of(batch, audio_url, sha256)
  local namespace, names = namespace_of(batch), {}
  local prefix = namespace == '' and '' or namespace .. '/'
  if audio_url then names[1] = prefix .. 'url-' .. redis.sha1hex(audio_url) end
  if sha256 and sha256 ~= '' then names[#names + 1] = prefix .. 'sha256-' .. sha256 end
  return names
end

-- Return whether a job has the id or the recording of an erased one.
local function has_tombstone(secret, id, spec, batch, sha256)
  local names = recordings_of(batch, cjson.decode(spec).audio_url, sha256)
  names[#names + 1] = id
  for i, name in ipairs(names) do names[i] = tombstone(secret, name) end
  for _, at in ipairs(redis.call('HMGET', key('tombstones'), unpack(names))) do if at then return true end end
  return false
end

-- Return a function that returns whether a new job has the id or the recording of an erased one.
local function erased_jobs()
  local secret = redis.call('HGET', key('tombstones'), 'secret')
  return function(...) return secret and has_tombstone(secret, ...) end
end

-- Return a function that returns whether a job lacks the consent that the queue requires.
local function consent_policy()
  if redis.call('EXISTS', key('consent_required')) == 0 then return function() return false end end
  return function(spec)
    local metadata = cjson.decode(spec).metadata
    local consent = type(metadata) == 'table' and metadata.consent_ref
    return not (type(consent) == 'string' and consent:find('%S'))
  end
end
