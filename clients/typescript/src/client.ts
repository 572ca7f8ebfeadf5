// `VoiceQueue`: typed calls of every route, and what takes several requests.

import type { paths } from './api.ts'
import { ApiError, IncompleteUploadError, NetworkError, TimeoutError } from './errors.ts'
import { eventsOf, linesOf } from './lines.ts'
import { Transport, sleep, type Options } from './transport.ts'
import type {
  Batch,
  BatchUpdate,
  BulkPlan,
  BulkResult,
  EnqueuedJob,
  ExistingJob,
  FreeQuery,
  Input,
  ItemOf,
  Job,
  JobDetails,
  JobEvent,
  JobFilter,
  ListPage,
  Method,
  NewJob,
  Operation,
  Output,
  PathOf,
  ReviewRequest,
  RowOutcome,
  Status,
  UploadSummary,
} from './types.ts'

export interface CallOptions {
  signal?: AbortSignal | undefined
  headers?: Record<string, string>
  /** Whether sending the request again changes nothing more. Default: true, except for POST. */
  isIdempotent?: boolean
}

export interface WaitOptions {
  /** Milliseconds until TimeoutError. Default: no limit. */
  timeoutMs?: number
  /** Milliseconds between two requests; longer while nothing changes. Default: 1,000. */
  intervalMs?: number
  signal?: AbortSignal
}

/** An event of the stream. `gap`: some events are no longer kept, read the jobs themselves. */
export type QueueEvent = { id: string; type: 'job'; data: JobEvent } | { id: string; type: 'gap' }

type QueryOf<M extends Method, P extends keyof paths> = NonNullable<Input<Operation<M, P>>['query']>

/** The lists by their paths. */
type Lists = {
  [P in PathOf<'get'> as Output<Operation<'get', P>> extends ListPage<unknown> ? P : never]: {
    item: ItemOf<Output<Operation<'get', P>>>
    query: Omit<QueryOf<'get', P>, 'cursor'>
  }
}

/** States in which a job stays until a person or a late result changes it. */
const AT_REST = new Set(['succeeded', 'failed', 'cancelled', 'unsure'])

const WAIT_MAX_MS = 10_000

export class VoiceQueue {
  readonly #transport: Transport

  constructor(options: Options) {
    this.#transport = new Transport(options)
  }

  /** Calls any route by its method and path, as the API's schema describes it: `call('get', '/v1/limits')`. */
  async call<M extends Method, P extends PathOf<M>>(
    method: M,
    path: P,
    ...rest: {} extends Input<Operation<M, P>>
      ? [input?: Input<Operation<M, P>>, options?: CallOptions]
      : [input: Input<Operation<M, P>>, options?: CallOptions]
  ): Promise<Output<Operation<M, P>>> {
    const [input, options] = rest as [RawInput?, CallOptions?]
    const response = await this.#send(method, path, input ?? {}, options)
    const text = await response.text()
    return (text === '' ? undefined : JSON.parse(text)) as Output<Operation<M, P>>
  }

  /** Yields every item of a list, page by page: `for await (const persona of queue.list('/v1/personas'))`. */
  async *list<P extends keyof Lists & string>(
    path: P,
    query?: Lists[P]['query'],
    options: CallOptions = {},
  ): AsyncGenerator<Lists[P]['item']> {
    let cursor: string | null = null
    do {
      const response = await this.#send('get', path, { query: { ...query, cursor } }, options)
      const page = (await response.json()) as ListPage<Lists[P]['item']>
      yield* page.data
      cursor = page.next_cursor
    } while (cursor !== null)
  }

  // ── jobs ──────────────────────────────────────────────────────────────────────────────────────

  /**
   * Creates a job. It gets a random `key` unless it has one, so that repeated requests create it once. Give it a key of
   * your own (the id of an order, for example) to create it once even if your program is restarted.
   */
  async createJob(job: NewJob, options: CallOptions = {}): Promise<EnqueuedJob | ExistingJob> {
    const body = { ...job, key: job.key ?? crypto.randomUUID() }
    return this.call('post', '/v1/jobs', { body }, { ...options, isIdempotent: true })
  }

  /** Returns a job with its timeline. */
  async getJob(id: string, options: CallOptions = {}): Promise<JobDetails> {
    return this.call('get', '/v1/jobs/{job_id}', { path: { job_id: id } }, options)
  }

  /** Yields the jobs that match, page by page. `metadata` selects jobs with these values. */
  listJobs(
    { metadata = {}, ...query }: Lists['/v1/jobs']['query'] & { metadata?: Record<string, string> } = {},
    options: CallOptions = {},
  ): AsyncGenerator<Job> {
    const filters = Object.entries(metadata).map(([name, value]) => [`metadata.${name}`, value])
    return this.list('/v1/jobs', { ...query, ...(Object.fromEntries(filters) as FreeQuery) }, options)
  }

  /** Returns the job when it has succeeded, failed, or been cancelled, or is unsure. Throws TimeoutError. */
  async waitForJob(id: string, options: WaitOptions = {}): Promise<JobDetails> {
    const deadline = Date.now() + (options.timeoutMs ?? Number.POSITIVE_INFINITY)
    const shortest = options.intervalMs ?? 1_000
    let interval = shortest
    let etag = ''
    while (true) {
      const response = await this.#send('get', '/v1/jobs/{job_id}', { path: { job_id: id } }, {
        signal: options.signal,
        headers: etag === '' ? {} : { 'if-none-match': etag },
      })
      if (response.status !== 304) {
        const job = (await response.json()) as JobDetails
        if (AT_REST.has(job.state)) return job
        interval = shortest
      }
      etag = response.headers.get('etag') ?? ''
      if (Date.now() + interval > deadline) throw new TimeoutError(`Job ${id} did not end in ${options.timeoutMs} ms.`)
      await sleep(interval, options.signal)
      interval = Math.min(interval * 1.5, Math.max(shortest, WAIT_MAX_MS))
    }
  }

  /** Cancels a job. */
  async cancelJob(id: string, query: QueryOf<'post', '/v1/jobs/{job_id}/cancel'> = {}): Promise<Job> {
    return this.call('post', '/v1/jobs/{job_id}/cancel', { path: { job_id: id }, query })
  }

  /** Retries a failed job, perhaps with a corrected recording. Sent once, because `resubmit` pays again. */
  async retryJob(
    id: string,
    { audio_url, ...query }: QueryOf<'post', '/v1/jobs/{job_id}/retry'> & { audio_url?: string } = {},
  ): Promise<Job> {
    const body = audio_url === undefined ? {} : { audio_url }
    return this.call('post', '/v1/jobs/{job_id}/retry', { path: { job_id: id }, query, body })
  }

  /** Decides about the unsure order of a job; `attempt` is that of its review. */
  async decideReview(id: string, review: ReviewRequest): Promise<Job> {
    return this.call('post', '/v1/jobs/{job_id}/review', { path: { job_id: id }, body: review }, { isIdempotent: true })
  }

  /** Plans to cancel or retry all jobs that match. Nothing changes until the plan is executed. */
  async plan(action: 'cancel' | 'retry', filter: JobFilter): Promise<BulkPlan> {
    const result = await this.call('post', `/v1/${action}`, { body: { filter } }, { isIdempotent: true })
    return result as BulkPlan
  }

  /** Executes a plan. Executing it again changes nothing more. */
  async execute(plan: Pick<BulkPlan, 'action' | 'token'>): Promise<BulkResult> {
    const result = await this.call('post', `/v1/${plan.action}`, { body: { token: plan.token } }, { isIdempotent: true })
    return result as BulkResult
  }

  // ── batches and the queue ─────────────────────────────────────────────────────────────────────

  /**
   * Creates the jobs of a batch from any number of rows, and yields the outcome of each while further rows are sent.
   * Returns the summary. Throws IncompleteUploadError: then send all rows again, which adds nothing twice.
   */
  async *createJobs(
    batch: string,
    rows: Iterable<NewJob> | AsyncIterable<NewJob>,
    options: { outcomes?: 'all' | 'rejected'; signal?: AbortSignal } = {},
  ): AsyncGenerator<RowOutcome, UploadSummary> {
    const response = await this.#transport.send({
      method: 'POST',
      path: `/v1/batches/${encodeURIComponent(batch)}/jobs`,
      query: { outcomes: options.outcomes },
      headers: { 'content-type': 'application/x-ndjson', accept: 'application/x-ndjson' },
      body: toStream(rows),
      isIdempotent: false,
      isStream: true,
      signal: options.signal,
    })
    for await (const line of linesOf(response)) {
      const outcome = JSON.parse(line) as RowOutcome | { summary: UploadSummary }
      if (!('summary' in outcome)) yield outcome
      else if (outcome.summary.complete) return outcome.summary
      else throw new IncompleteUploadError(outcome.summary)
    }
    throw new IncompleteUploadError(null)
  }

  /** Returns a batch with its progress and limits. */
  async getBatch(name: string): Promise<Batch> {
    return this.call('get', '/v1/batches/{name}', { path: { name } })
  }

  /** Yields the batches, newest first. */
  listBatches(): AsyncGenerator<Batch> {
    return this.list('/v1/batches')
  }

  /** Sets the callback and the limits of a batch, also before it has jobs. */
  async updateBatch(name: string, changes: BatchUpdate): Promise<Batch> {
    return this.call('patch', '/v1/batches/{name}', { path: { name }, body: changes })
  }

  /** Returns the status of the queue, or of one batch. */
  async getStatus(batch?: string): Promise<Status> {
    return this.call('get', '/v1/status', { query: batch === undefined ? {} : { batch } })
  }

  /**
   * Yields the events of all jobs, of one batch or of one job, without an end. It connects again after an interruption
   * and continues after the last event; `after: '0-0'` begins with the oldest one that is kept.
   */
  async *events(
    { after = '', signal, ...query }: { after?: string; batch?: string; job?: string; signal?: AbortSignal } = {},
  ): AsyncGenerator<QueueEvent> {
    let lastId = after
    for (let failures = 0; ; failures++) {
      try {
        for await (const event of eventsOf(await this.#connect(query, lastId, signal))) {
          failures = 0
          lastId = event.id
          if (event.type === 'gap') yield { id: event.id, type: 'gap' }
          if (event.type === 'job') yield { id: event.id, type: 'job', data: JSON.parse(event.data) as JobEvent }
        }
      } catch (error) {
        if (signal?.aborted || error instanceof ApiError || error instanceof SyntaxError) throw error
        if (!(error instanceof NetworkError || error instanceof TimeoutError || error instanceof TypeError)) throw error
      }
      await sleep(this.#transport.backoff(failures), signal)
    }
  }

  async #connect(query: Record<string, unknown>, lastId: string, signal: AbortSignal | undefined): Promise<Response> {
    return this.#transport.send({
      method: 'GET',
      path: '/v1/events',
      query,
      headers: { accept: 'text/event-stream', ...(lastId === '' ? {} : { 'last-event-id': lastId }) },
      isIdempotent: true,
      isStream: true,
      signal,
    })
  }

  async #send(method: Method, path: string, input: RawInput, options: CallOptions = {}): Promise<Response> {
    return this.#transport.send({
      method: method.toUpperCase(),
      path: path.replace(/{(\w+)}/g, (_, name: string) => encodePart(name, String(input.path?.[name]))),
      query: input.query,
      headers: { ...(input.body === undefined ? {} : { 'content-type': 'application/json' }), ...options.headers },
      body: input.body === undefined ? undefined : JSON.stringify(input.body),
      isIdempotent: options.isIdempotent ?? method !== 'post',
      signal: options.signal,
    })
  }
}

interface RawInput {
  path?: Record<string, unknown>
  query?: Record<string, unknown>
  body?: unknown
}

/** Encodes a parameter of a path. The slash of an owner (`namespace/shop`) separates parts. Throws TypeError. */
function encodePart(name: string, text: string): string {
  if (/^\.{0,2}$/.test(text)) throw new TypeError(`${name}: ${JSON.stringify(text)} is not allowed`)
  const parts = name === 'owner' ? text.split('/') : [text]
  return parts.map(encodeURIComponent).join('/')
}

/** Returns rows as a body that is read as it is sent. */
function toStream(rows: Iterable<NewJob> | AsyncIterable<NewJob>): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder()
  const iterator = Symbol.asyncIterator in rows ? rows[Symbol.asyncIterator]() : rows[Symbol.iterator]()
  return new ReadableStream({
    async pull(controller) {
      const { value, done } = await iterator.next()
      if (done) controller.close()
      else controller.enqueue(encoder.encode(`${JSON.stringify(value)}\n`))
    },
    async cancel() {
      await iterator.return?.()
    },
  })
}
