-- admit: take jobs from the backlog into flight: by priority, within it batches by turns, as many as there are
-- slots, POSTs a minute and credits for. On trial that is one that was not refused yet, if there is any; and after a
-- trial that failed one from the other end of the backlog, for jobs that are alike often lie together.
-- KEYS  root
-- ARGV  now, most to take in this call, then the limits
-- RETURNS  'short' or 'enough' where that has changed since the last call, else ''; then id, stage, id, stage, …
local now, limits = tonumber(ARGV[1]), limits_from(3)
local paused, gate, failed = paused_stages(), gate_of(now)
redis.call('DEL', key('wake'))
local is_early = gate == 'closed' and is_newcomer_tried(now, paused)
if gate == 'closed' and not is_early then return { '' } end

local waiting = redis.call('ZCARD', key('state:admitted'))
local free = math.min(limit_now(limits) - redis.call('ZCARD', key('flight')), tonumber(ARGV[2]))
-- What cannot leave within seconds need not hold a slot.
if limits.rate then free = math.min(free, math.ceil(limits.rate / 20) - waiting) end
if gate ~= 'open' then free = math.min(free, 1 - waiting - redis.call('ZCARD', key('state:charging'))) end

local credits = credits_free(limits.floor)
local from_end = is_early or (failed % 2 == 1 and redis.call('EXISTS', key('refused')) == 1)
local admitted, short = { '' }, nil

-- Whether the batch whose turn it is has had it; nil where nothing can be paid any more.
local function serve(rank, batch, head_of)
  local id = head_of(rank, batch)
  if not id then return false end
  local job = redis.call('HMGET', key('job:' .. id), 'stage', 'next')
  local cost = cost_from(job[1], job[2])
  if not batch_allows(batch, cost) then return false end
  if credits and credits < cost then short = cost return nil end
  move(id, { to = 'admitted', stage = job[1], due = ARGV[1] }, ARGV[1])
  to_the_back(rank, batch, 'XX')
  admitted[#admitted + 1], admitted[#admitted + 2] = id, job[1]
  credits, free = credits and credits - cost, free - 1
  return true
end

local function serve_all(head_of, reversed)
  for n = 0, 2 do
    local rank, passed = reversed and 2 - n or n, 0
    while free > 0 and not short do
      local batch = redis.call('ZRANGE', key('turns:' .. rank), passed, passed)[1]
      if not batch then break end
      if not serve(rank, batch, head_of) then passed = passed + 1 end
    end
  end
end

if gate ~= 'open' then serve_all(heads(paused, passing(now, true), from_end), from_end) end
serve_all(heads(paused, passing(now, false), from_end))
admitted[1] = note_short(now, short, free)
return admitted
