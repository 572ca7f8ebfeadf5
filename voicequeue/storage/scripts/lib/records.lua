-- Records of new jobs, and the Celery messages that they came from.

-- Record that a job came from a Celery message. Of the messages that sent it again, the latest are kept. Returns whether it
-- was not recorded yet.
local MESSAGE_IDS_MAX = 20
local function add_message_id(id, message_id)
  local ids = cjson.decode(redis.call('HGET', JOB .. id, 'message_ids') or '[]')
  for _, known in ipairs(ids) do
    if known == message_id then return false end
  end
  ids[#ids + 1] = message_id
  if #ids > MESSAGE_IDS_MAX then table.remove(ids, 2) end
  redis.call('HSET', JOB .. id, 'message_ids', cjson.encode(ids))
  return true
end

-- Record the message that enqueues an existing job again; return the outcome.
local function repeated(id, message_id)
  if message_id ~= '' and add_message_id(id, message_id) then drop_summary_of(id) end
  return 0
end

-- Write the first record of a job; fields with the value '' are omitted. Those that transitions read are the first: Redis
-- looks for each from the beginning.
local function create_record(id, spec, created, rank, batch, stage, next_stage, shared_voice, sha256, source, source_row, message_id)
  local fields = { 'state', 'queued', 'stage', stage, 'version', 1, 'source', source, 'created', created, 'rank', rank,
    'spec', spec }
  if batch ~= '' then fields[15] = 'batch'; fields[16] = batch end
  if next_stage ~= '' then fields[#fields + 1] = 'next_stage'; fields[#fields + 1] = next_stage end
  if shared_voice ~= '' then fields[#fields + 1] = 'shared_voice'; fields[#fields + 1] = shared_voice end
  if sha256 ~= '' then fields[#fields + 1] = 'sha256'; fields[#fields + 1] = sha256 end
  if source_row ~= '' then fields[#fields + 1] = 'source_row'; fields[#fields + 1] = source_row end
  redis.call('HSET', JOB .. id, unpack(fields))
  if message_id ~= '' then add_message_id(id, message_id) end
end
