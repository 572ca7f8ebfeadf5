// Signatures: SIGNED has a callback that the queue has signed, as JSON.

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { SignatureError, verifyCallback } from '../src/index.ts'

const { body, headers, secret } = JSON.parse(process.env['SIGNED'] ?? '{}') as {
  body: string
  headers: Record<string, string>
  secret: string
}
const other = 'whsec_b3RoZXI='

test('a signed callback is returned, also while its secret is rotated', async () => {
  const payload = await verifyCallback({ body, headers, secret: [other, secret] })
  assert.deepEqual([payload.type, payload.id], ['job.succeeded', headers['webhook-id']])
  const bytes = new TextEncoder().encode(body)
  assert.deepEqual(await verifyCallback({ body: bytes, headers: new Headers(headers), secret }), payload)
})

const forged = {
  'a changed body': { body: body.replace('succeeded', 'failed'), headers, secret },
  'another secret': { body, headers, secret: other },
  'an old one': { body, headers: { ...headers, 'webhook-timestamp': '1' }, secret },
  'a time that is none': { body, headers: { ...headers, 'webhook-timestamp': 'now' }, secret },
  'a signature that is none': { body, headers: { ...headers, 'webhook-signature': 'v1,§ v1, v2,x' }, secret },
  'no headers': { body, headers: {}, secret },
}
for (const [name, input] of Object.entries(forged)) {
  test(`${name} is refused`, () => assert.rejects(verifyCallback(input), SignatureError))
}

test('a secret that is none is a mistake of the program', () =>
  assert.rejects(verifyCallback({ body, headers, secret: 'secret' }), TypeError))
