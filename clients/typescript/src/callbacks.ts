// Callbacks: who sent one, and what it says. Standard Webhooks, version 1.

import { SignatureError } from './errors.ts'
import type { Batch, Job } from './types.ts'

/** A callback about a job, a batch, or a budget; `type` says which, for example `job.succeeded`. */
export interface CallbackPayload<T = Job | Batch | Record<string, unknown>> {
  type: string
  timestamp: string
  data: T
}

export interface CallbackInput {
  /** The body as it was received, byte for byte. */
  body: string | Uint8Array
  /** The headers of the request: of fetch's `Request`, or of Node's `IncomingMessage`. */
  headers: Headers | Record<string, string | string[] | undefined>
  /** The secret of the receiver, `whsec_…`; several while it is rotated. */
  secret: string | readonly string[]
  /** Seconds that the timestamp may differ from now. Default: 300. */
  toleranceS?: number
}

/** Returns a callback whose signature is valid, with its id, by which repeated ones are recognized. Throws SignatureError. */
export async function verifyCallback<T = Job | Batch | Record<string, unknown>>(
  input: CallbackInput,
): Promise<CallbackPayload<T> & { id: string }> {
  const [id, timestamp, signatures] = ['id', 'timestamp', 'signature'].map((name) => header(input, `webhook-${name}`))
  if (!id || !timestamp || !signatures) throw new SignatureError('The headers of a signature are missing.')
  checkTime(timestamp, input.toleranceS ?? 300)
  const body = typeof input.body === 'string' ? new TextEncoder().encode(input.body) : input.body
  const signed = concat(new TextEncoder().encode(`${id}.${timestamp}.`), body)
  const secrets = typeof input.secret === 'string' ? [input.secret] : input.secret
  for (const key of await Promise.all(secrets.map(toKey))) {
    for (const signature of signatures.split(' ').filter((text) => text.startsWith('v1,'))) {
      const bytes = fromBase64(signature.slice(3))
      if (bytes !== null && (await crypto.subtle.verify('HMAC', key, bytes, signed))) {
        return { ...(JSON.parse(new TextDecoder().decode(body)) as CallbackPayload<T>), id }
      }
    }
  }
  throw new SignatureError('No signature is valid for this secret.')
}

function header(input: CallbackInput, name: string): string | null | undefined {
  if (input.headers instanceof Headers) return input.headers.get(name)
  const value = input.headers[name]
  return Array.isArray(value) ? value.join(' ') : value
}

function checkTime(timestamp: string, toleranceS: number): void {
  const distance = Math.abs(Date.now() / 1000 - Number(timestamp))
  if (!/^\d{1,15}$/.test(timestamp) || distance > toleranceS) {
    throw new SignatureError('The timestamp is too old, or in the future.')
  }
}

async function toKey(secret: string): Promise<CryptoKey> {
  const bytes = secret.startsWith('whsec_') ? fromBase64(secret.slice('whsec_'.length)) : null
  if (bytes === null || bytes.length === 0) throw new TypeError('A secret is whsec_ and base64.')
  return crypto.subtle.importKey('raw', bytes, { name: 'HMAC', hash: 'SHA-256' }, false, ['verify'])
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> | null {
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0))
  } catch {
    return null
  }
}

function concat(first: Uint8Array, second: Uint8Array): Uint8Array<ArrayBuffer> {
  const both = new Uint8Array(first.length + second.length)
  both.set(first)
  both.set(second, first.length)
  return both
}
