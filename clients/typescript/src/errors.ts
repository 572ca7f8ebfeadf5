// Errors of the client.

import type { FieldError, Problem, UploadSummary } from './types.ts'

/** Any error of this client. */
export class VoiceQueueError extends Error {
  override name = 'VoiceQueueError'
}

/** The API refused a request: a problem as in RFC 9457. */
export class ApiError extends VoiceQueueError {
  override name = 'ApiError'
  readonly status: number
  /** What went wrong, for programs, such as `key_conflict`. */
  readonly code: string
  /** The invalid fields. */
  readonly errors: readonly FieldError[]
  readonly problem: Problem
  /** Id of the request in the gateway's log. */
  readonly requestId: string | null

  constructor(problem: Problem, requestId: string | null) {
    const fields = (problem.errors ?? []).map(({ field, message }) => `${field}: ${message}`)
    super([problem.detail, ...fields].join(' '))
    this.status = problem.status
    this.code = problem.code
    this.errors = problem.errors ?? []
    this.problem = problem
    this.requestId = requestId
  }
}

/** No response arrived. Whether the request took effect is unknown. */
export class NetworkError extends VoiceQueueError {
  override name = 'NetworkError'
}

/** Something did not happen in time. */
export class TimeoutError extends VoiceQueueError {
  override name = 'TimeoutError'
}

/** An upload of rows ended before all of them were enqueued. Send all rows again: that adds nothing twice. */
export class IncompleteUploadError extends VoiceQueueError {
  override name = 'IncompleteUploadError'
  /** What was enqueued; null if the response ended without saying so. */
  readonly summary: UploadSummary | null

  constructor(summary: UploadSummary | null) {
    super(summary?.problem?.detail ?? 'The response ended without a summary.')
    this.summary = summary
  }
}

/** A callback without a valid signature. */
export class SignatureError extends VoiceQueueError {
  override name = 'SignatureError'
}
