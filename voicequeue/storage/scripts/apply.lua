-- apply: write moves that Python decided on, each if its job still stands at the version it was decided for.
-- KEYS  root
-- ARGV  now, JSON list of moves, then the limits. A move is {id, v, to, stage, due, reason, set = {field: value}, unset = [field], credits, task_id,
--       attempt = the order that those are of, archive = its songs are to be archived, refused = upstream refused its order
--       (lib/refused.lua), unsettled = credits of a lost order that this move waits for no longer}
-- RETURNS  for each move 1 = written (of a job that is to be cancelled perhaps as another one), 0 = the job had moved on,
--          or is to be cancelled and may not be ordered again; of a refused order 2 = others are on trial since, 3 = nothing
--          is charged since
local now, limits, moves = ARGV[1], limits_from(3), cjson.decode(ARGV[2])
local written, taken, is_answered = {}, {}, false
local mixed = is_taken_any(moves)

for i, m in ipairs(moves) do
  local job = record(m.id)
  local state, failure, shares = job.state, job.failure, m.stage == 'voice' and job.shares
  written[i] = 0
  if job.v == tostring(m.v) and not is_withheld(job, m) then
    -- A job that is to be ordered again waits where another makes the voice by now.
    local is_repeated = m.to == 'queued' and (FINAL[state] or state == 'pending')
    if shares and is_repeated and not makes(shares, m.id) then m.to = 'waiting' end
    if m.credits > 0 then
      m.attempt = m.attempt or tonumber(job.attempt or 0)
      local orders, credits = book(job, m, now)
      if orders then m.set.orders, m.set.credits = orders, credits end
      if state == 'charging' then taken[m.stage] = (taken[m.stage] or 0) + 1 end
    end
    if m.unsettled then unsettle(job.batch, m.unsettled) end
    written[i] = m.refused and state == 'charging' and judge(m.id, m, job, now, mixed) or 1
    is_answered = is_answered or (state == 'pending' and (m.to == 'succeeded' or m.to == 'admitted'))
    cancel_instead(job, m, now)
    move(m.id, m, now, job)
    count_failure(failure, -1)
    count_failure(job.failure, 1)
    if m.archive then to_be_archived(m.id, now) end
    if m.set.persona_id then
      voice_made(m.id, now)
    elseif shares then
      voice_follows(m.id, shares, m, now)
    end
  end
end
if is_answered then answered() end
if next(taken) then proven(limits, now, taken) end
return written
