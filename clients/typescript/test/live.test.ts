// Against a gateway: `node --test test/live.test.ts`, with VOICEQUEUE_GATEWAY_URL and VOICEQUEUE_API_KEY.

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { ApiError, IncompleteUploadError, VoiceQueue, type NewJob, type RowOutcome } from '../src/index.ts'

const url = process.env['VOICEQUEUE_GATEWAY_URL'] ?? ''
const apiKey = process.env['VOICEQUEUE_API_KEY'] ?? ''
const queue = new VoiceQueue({ url, apiKey, backoffMs: 20 })
const recording = 'https://example.com/ana.wav'
const song = { prompt: 'La la' }

async function refusal(work: Promise<unknown>): Promise<ApiError> {
  const error = await work.then(() => undefined, (reason: unknown) => reason)
  assert(error instanceof ApiError, String(error))
  return error
}

test('a key creates a job once', async () => {
  const job = await queue.createJob({ audio_url: recording, song, batch: 'one', key: 'order-1' })
  const again = await queue.createJob({ audio_url: recording, song, batch: 'one', key: 'order-1' })
  assert.deepEqual([job.state, job.key, again.id], ['queued', 'order-1', job.id])
  assert.equal((await queue.getJob(job.id)).timeline.length, 1)
})

test('jobs without a key differ, and get one', async () => {
  const jobs = [await queue.createJob({ audio_url: recording }), await queue.createJob({ audio_url: recording })]
  assert.equal(new Set(jobs.map(({ id }) => id)).size, 2)
  assert.equal(new Set(jobs.map(({ key }) => key)).size, 2)
})

test('problems are errors with their code and fields', async () => {
  await queue.createJob({ audio_url: recording, key: 'order-2' })
  const conflict = await refusal(queue.createJob({ audio_url: recording, batch: 'two', key: 'order-2' }))
  assert.deepEqual([conflict.status, conflict.code, conflict.errors[0]?.field], [409, 'key_conflict', 'key'])
  assert.equal((await refusal(queue.createJob({ audio_url: 'ana.wav' }))).errors[0]?.field, 'audio_url')
  assert.equal((await refusal(queue.getJob('a?b#c'))).code, 'job_not_found')
  const stranger = await refusal(new VoiceQueue({ url, apiKey: 'wrong' }).getStatus())
  assert.deepEqual([stranger.code, typeof stranger.requestId], ['unauthorized', 'string'])
})

test('no parameter of a path leaves it', async () => {
  await assert.rejects(queue.getJob('..'), TypeError)
  await assert.rejects(queue.getBatch(''), TypeError)
})

async function* rows(count: number): AsyncGenerator<NewJob> {
  for (let row = 1; row <= count; row++) {
    yield { audio_url: `https://example.com/${row}.wav`, metadata: { part: `${row % 2}` } }
  }
  yield { audio_url: 'no URL' }
}

async function count(items: AsyncIterable<unknown>): Promise<number> {
  let number = 0
  for await (const _ of items) number++
  return number
}

test('rows stream in, their outcomes stream out, and lists have all of them', async () => {
  const outcomes: RowOutcome[] = []
  const upload = queue.createJobs('many', rows(250))
  let next = await upload.next()
  for (; !next.done; next = await upload.next()) outcomes.push(next.value)
  assert.deepEqual([next.value.new, next.value.rejected, next.value.credits], [250, 1, 1000])
  assert.deepEqual([outcomes.length, outcomes.at(-1)?.outcome, outcomes.at(-1)?.code], [251, 'rejected', 'invalid'])
  assert.equal(await count(queue.createJobs('many', rows(250), { outcomes: 'rejected' })), 1)
  assert.equal(await count(queue.listJobs({ batch: 'many', limit: 100 })), 250)
  assert.equal(await count(queue.listJobs({ batch: 'many', metadata: { part: '1' } })), 125)
})

test('an upload that is refused is an error before its first row', async () => {
  assert.equal((await refusal(queue.createJobs('a b', rows(1)).next())).code, 'invalid')
  assert.equal(new IncompleteUploadError(null).summary, null)
})

test('a change of a batch returns it, and a plan is executed once', async () => {
  await count(queue.createJobs('planned', rows(3)))
  const batch = await queue.updateBatch('planned', { max_credits: 100, max_in_flight: null })
  assert.deepEqual([batch.total, batch.max_credits, batch.max_in_flight], [3, 100, null])
  assert.deepEqual(await queue.getBatch('planned'), batch)
  const plan = await queue.plan('cancel', { batch: 'planned' })
  assert.equal(plan.count, 3)
  assert.equal((await queue.execute(plan)).changed, 3)
  await queue.execute(plan)
})

test('a job is followed to its end', async () => {
  const job = await queue.createJob({ audio_url: recording, batch: 'followed' })
  const events = queue.events({ job: job.id, after: '0-0' })
  const waiting = queue.waitForJob(job.id, { intervalMs: 20, timeoutMs: 60_000 })
  await queue.cancelJob(job.id, { reason: 'test' })
  assert.equal((await waiting).state, 'cancelled')
  for await (const event of events) if (event.type === 'job' && event.data.state === 'cancelled') break
})

test('waiting and following end when asked to', async () => {
  const job = await queue.createJob({ audio_url: recording })
  await assert.rejects(queue.waitForJob(job.id, { intervalMs: 10, timeoutMs: 50 }), { name: 'TimeoutError' })
  const stopped = new AbortController()
  const next = queue.events({ signal: stopped.signal }).next()
  setTimeout(() => stopped.abort(), 100)
  await assert.rejects(next, { name: 'AbortError' })
})

test('operators reach every route', async () => {
  const limits = await queue.call('patch', '/v1/limits', { body: { in_flight: 7 } })
  const path = { owner: 'namespace/shop' }
  const budgets = await queue.call('put', '/v1/budgets/{owner}', { path, body: { day: 5 } })
  assert.deepEqual([limits.in_flight, budgets.data.map(({ owner, limit }) => [owner, limit])], [7, [['namespace/shop', 5]]])
  assert.equal(await count(queue.list('/v1/personas')), 0)
})
