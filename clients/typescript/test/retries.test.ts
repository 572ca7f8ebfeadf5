// Which requests are sent again, to a server that fails on demand.

import assert from 'node:assert/strict'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'

import { ApiError, NetworkError, TimeoutError, VoiceQueue } from '../src/index.ts'

type Answer = (request: IncomingMessage, response: ServerResponse) => void

const problem = (status: number, headers: Record<string, string> = {}): Answer => (_, response) => {
  response.writeHead(status, { 'content-type': 'application/problem+json', ...headers })
  response.end(JSON.stringify({ type: 'about:blank', title: 'No', status, detail: 'No.', code: 'some_code' }))
}
const ok: Answer = (_, response) => {
  response.writeHead(200, { 'content-type': 'application/json' })
  response.end('{"id": "x", "state": "queued", "data": [], "next_cursor": null, "has_more": false}')
}
const cut: Answer = (request) => request.socket.destroy()
const silent: Answer = () => undefined

/** Calls the client of a server that gives these answers; returns what it returned or threw, and what was sent. */
async function against(answers: Answer[], call: (queue: VoiceQueue) => Promise<unknown>) {
  const sent: { body: string; at: number }[] = []
  const server = createServer(async (request, response) => {
    let body = ''
    for await (const piece of request) body += piece
    const answer = answers[Math.min(sent.length, answers.length - 1)]
    sent.push({ body, at: Date.now() })
    answer?.(request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const queue = new VoiceQueue({ url, apiKey: 'key', maxRetries: 2, backoffMs: 1, timeoutMs: 2_000 })
  const result = await call(queue).then((value) => value ?? 'done', (error: unknown) => error)
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
  return { result, sent }
}

const create = (queue: VoiceQueue) => queue.createJob({ audio_url: 'https://a.example/a.wav' })
const retry = (queue: VoiceQueue) => queue.retryJob('x', { resubmit: true })

test('a job is sent again with the same key after an outage and a lost response', async () => {
  const { result, sent } = await against([problem(503), cut, ok], create)
  assert.equal((result as { id: string }).id, 'x')
  assert.equal(sent.length, 3)
  assert.equal(new Set(sent.map(({ body }) => body)).size, 1)
  assert.match(sent[0]?.body ?? '', /"key":"[0-9a-f-]{36}"/)
})

test('what may pay twice is sent once, unless nothing was done', async () => {
  const outage = await against([problem(503), ok], retry)
  assert(outage.result instanceof ApiError)
  assert.equal(outage.sent.length, 1)
  const lost = await against([cut, ok], retry)
  assert(lost.result instanceof NetworkError)
  assert.equal(lost.sent.length, 1)
  assert.equal((await against([problem(429), ok], retry)).sent.length, 2)
})

test('the gateway says when to come again', async () => {
  const { sent } = await against([problem(429, { 'retry-after': '1' }), ok], create)
  assert((sent[1]?.at ?? 0) - (sent[0]?.at ?? 0) >= 990)
})

test('what is wrong is not sent again, and retries end', async () => {
  assert.equal((await against([problem(422)], create)).sent.length, 1)
  const { result, sent } = await against([problem(503)], create)
  assert(result instanceof ApiError)
  assert.deepEqual([result.status, result.code, sent.length], [503, 'some_code', 3])
})

test('a silent server is given up', async () => {
  const { result } = await against([silent], retry)
  assert(result instanceof TimeoutError)
})

test('an aborted call ends with the reason of its signal', async () => {
  const { result, sent } = await against([problem(503, { 'retry-after': '60' })], (queue) => {
    const aborting = new AbortController()
    setTimeout(() => aborting.abort(new Error('enough')), 100)
    return queue.getJob('x', { signal: aborting.signal })
  })
  assert.equal((result as Error).message, 'enough')
  assert.equal(sent.length, 1)
})

test('the answer of a proxy is an error, too', async () => {
  const html: Answer = (_, response) => response.writeHead(404).end('<html>')
  const { result } = await against([html], create)
  assert(result instanceof ApiError)
  assert.deepEqual([result.status, result.code], [404, 'unknown'])
})
