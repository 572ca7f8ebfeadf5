// Requests: the key, time limits, retries, and problems as errors.

import { ApiError, NetworkError, TimeoutError } from './errors.ts'
import type { Problem } from './types.ts'

export interface Options {
  /** URL of the gateway, such as `https://voices.example`. */
  url: string
  /** An API key, or the local token. */
  apiKey: string
  /** The most retries of one request. Default: 4. */
  maxRetries?: number
  /** Milliseconds until one attempt is given up. Default: 30,000. */
  timeoutMs?: number
  /** Milliseconds before the first retry; doubled by each. Default: 500. */
  backoffMs?: number
  /** A fetch of your own, for example with a proxy. */
  fetch?: typeof fetch
}

export interface Request {
  method: string
  path: string
  query?: Record<string, unknown> | undefined
  headers?: Record<string, string>
  body?: BodyInit | undefined
  /** Whether sending the request again changes nothing more. Otherwise only a 429 is retried: nothing was done then. */
  isIdempotent: boolean
  /** Whether the response lasts: only its head is limited in time. */
  isStream?: boolean
  signal?: AbortSignal | undefined
}

/** The longest wait between two attempts, in milliseconds, unless the gateway asks for a longer one. */
const BACKOFF_MAX_MS = 20_000

/** Responses of the gateway or of a proxy that may pass by themselves. */
const TRANSIENT = new Set([429, 502, 503, 504])

export class Transport {
  readonly #options: Required<Options>

  constructor(options: Options) {
    if (!options.apiKey) throw new TypeError('apiKey is required')
    const url = new URL(options.url).href.replace(/\/+$/, '')
    const defaults = { maxRetries: 4, timeoutMs: 30_000, backoffMs: 500, fetch: globalThis.fetch.bind(globalThis) }
    this.#options = { ...defaults, ...options, url }
  }

  /** Sends a request, again if that is safe. Throws ApiError, NetworkError, TimeoutError. */
  async send(request: Request): Promise<Response> {
    for (let attempt = 0; ; attempt++) {
      let response: Response | undefined
      let failure: unknown
      try {
        response = await this.#attempt(request)
      } catch (error) {
        failure = error
      }
      if (response !== undefined && (response.ok || response.status === 304)) return response
      if (attempt >= this.#options.maxRetries || !mayRetry(request, response)) {
        if (response === undefined) throw failure
        throw await toError(response)
      }
      await response?.body?.cancel()
      await sleep(this.backoff(attempt, response), request.signal)
    }
  }

  /** Returns the milliseconds to wait after an attempt: what the gateway asks for, otherwise longer each time. */
  backoff(attempt: number, response?: Response): number {
    const asked = Number(response?.headers.get('retry-after') ?? Number.NaN) * 1000
    const longest = Math.min(this.#options.backoffMs * 2 ** attempt, BACKOFF_MAX_MS)
    const own = longest * (0.5 + Math.random() / 2)
    return Number.isFinite(asked) ? Math.max(asked, own) : own
  }

  async #attempt(request: Request): Promise<Response> {
    const { url, apiKey, timeoutMs, fetch } = this.#options
    const timer = new AbortController()
    const timeout = setTimeout(() => timer.abort(), timeoutMs)
    const signals = request.signal === undefined ? [timer.signal] : [timer.signal, request.signal]
    try {
      const response = await fetch(url + request.path + toQuery(request.query), {
        method: request.method,
        headers: { accept: 'application/json', ...request.headers, authorization: `Bearer ${apiKey}` },
        signal: AbortSignal.any(signals),
        redirect: 'error',
        ...(request.body === undefined ? {} : { body: request.body }),
        ...(request.body instanceof ReadableStream ? { duplex: 'half' } : {}),
      } as RequestInit)
      if (request.isStream && response.ok) return response
      const text = response.status === 204 || response.status === 304 ? null : await response.text()
      return new Response(text, { status: response.status, headers: response.headers })
    } catch (error) {
      if (request.signal?.aborted) throw request.signal.reason
      if (timer.signal.aborted) throw new TimeoutError(`No response within ${timeoutMs} ms.`, { cause: error })
      throw new NetworkError(`${request.method} ${request.path} failed: ${reasonOf(error)}`, { cause: error })
    } finally {
      clearTimeout(timeout)
    }
  }
}

function mayRetry(request: Request, response: Response | undefined): boolean {
  if (request.signal?.aborted || request.body instanceof ReadableStream) return false
  if (response?.status === 429) return true
  return request.isIdempotent && (response === undefined || TRANSIENT.has(response.status))
}

/** Waits. Throws the reason of the signal. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted()
    const timer = setTimeout(done, ms)
    function done(): void {
      signal?.removeEventListener('abort', stop)
      resolve()
    }
    function stop(): void {
      clearTimeout(timer)
      reject(signal?.reason)
    }
    signal?.addEventListener('abort', stop, { once: true })
  })
}

async function toError(response: Response): Promise<ApiError> {
  const requestId = response.headers.get('x-request-id')
  const text = await response.text()
  if (response.headers.get('content-type')?.startsWith('application/problem+json')) {
    return new ApiError(JSON.parse(text) as Problem, requestId)
  }
  // A proxy answered.
  const detail = `${response.status} ${text.slice(0, 200)}`
  const problem: Problem = { type: 'about:blank', title: '', status: response.status, detail, code: 'unknown' }
  return new ApiError(problem, requestId)
}

function toQuery(query: Record<string, unknown> = {}): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null)
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString()
  return text === '' ? '' : `?${text}`
}

function reasonOf(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  return cause instanceof Error ? cause.message : String(cause)
}
