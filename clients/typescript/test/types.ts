// What must compile, and what must not: checked by the compiler alone, never run.

import { VoiceQueue, type Job, type NewJob } from '../src/index.ts'

declare const queue: VoiceQueue

export async function compiles(): Promise<void> {
  // Fields with a default may be left out, on every level.
  await queue.createJob({ audio_url: 'https://a.example/a.wav', song: { prompt: 'La la' } })
  await queue.createJob({ audio_url: 'https://a.example/a.wav', songs: [{ description: 'A waltz' }], priority: 'bulk' })
  await queue.createJob({ persona_id: 'p', song: null })
  const job: NewJob = { audio_url: 'https://a.example/a.wav', metadata: { customer: '17' } }
  const created = await queue.createJob(job)
  const id: string = created.id
  // Fields of a response are always there.
  const details = await queue.getJob(id)
  const credits: number = details.credits + details.clips.length + details.timeline.length
  const settled: string | null = details.settled_at
  for await (const { name } of queue.list('/v1/batches', { limit: 10 })) name satisfies string
  for await (const { persona_id } of queue.list('/v1/personas')) persona_id satisfies string
  for await (const one of queue.listJobs({ state: 'failed', metadata: { customer: '17' } })) one satisfies Job
  await queue.call('patch', '/v1/limits', { body: { in_flight: 20, submit_rate: null } })
  await queue.call('get', '/v1/limits')
  await queue.call('get', '/v1/jobs', { query: { limit: 5, 'metadata.customer': '17' } })
  const budgets = await queue.call('put', '/v1/budgets/{owner}', { path: { owner: 'account' }, body: { day: 5 } })
  budgets.data.map((budget) => budget.remaining + credits)
  const nothing: undefined = await queue.call('delete', '/v1/personas/{persona_id}', { path: { persona_id: 'p' } })
  await queue.decideReview(id, { decision: 'resubmit', attempt: 1 })
  return void [settled, nothing]
}

export async function doesNotCompile(): Promise<void> {
  // @ts-expect-error A number is no URL.
  await queue.createJob({ audio_url: 5 })
  // @ts-expect-error Unknown field.
  await queue.createJob({ audio_url: 'https://a.example/a.wav', sing: { prompt: 'La la' } })
  // @ts-expect-error Lyrics are text.
  await queue.createJob({ audio_url: 'https://a.example/a.wav', song: { prompt: 5 } })
  // @ts-expect-error Unknown priority.
  await queue.createJob({ audio_url: 'https://a.example/a.wav', priority: 'urgent' })
  // @ts-expect-error Metadata are text.
  await queue.createJob({ audio_url: 'https://a.example/a.wav', metadata: { customer: 17 } })
  // @ts-expect-error A priority is never null.
  await queue.createJob({ audio_url: 'https://a.example/a.wav', priority: null })
  // @ts-expect-error Unknown state.
  queue.listJobs({ state: 'done' })
  // @ts-expect-error A cursor belongs to the iterator.
  queue.list('/v1/batches', { cursor: 'x' })
  // @ts-expect-error No list.
  queue.list('/v1/status')
  // @ts-expect-error Unknown path.
  await queue.call('get', '/v1/job')
  // @ts-expect-error The path has no such method.
  await queue.call('delete', '/v1/jobs')
  // @ts-expect-error The parameter of the path is missing.
  await queue.call('get', '/v1/jobs/{job_id}')
  // @ts-expect-error The body is missing.
  await queue.call('post', '/v1/jobs/{job_id}/review', { path: { job_id: 'x' } })
  // @ts-expect-error A review names the order.
  await queue.decideReview('x', { decision: 'abandon' })
  // @ts-expect-error May be null.
  const at: string = (await queue.getJob('x')).settled_at
  return void at
}
