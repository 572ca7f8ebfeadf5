// Names of what the API takes and returns, and the types of its calls, from the generated schema.

import type { components, paths } from './api.ts'

type Schemas = components['schemas']

export type NewJob = Schemas['NewJob']
export type Song = Schemas['Song']
export type Job = Schemas['Job']
export type EnqueuedJob = Schemas['EnqueuedJob']
export type ExistingJob = Schemas['ExistingJob']
export type JobDetails = Schemas['JobDetails']
export type Clip = Schemas['Clip']
export type State = Schemas['State']
export type Stage = Schemas['Stage']
export type FailureCode = Schemas['FailureCode']
export type JobFilter = Schemas['JobFilter']
export type BulkPlan = Schemas['BulkPlan']
export type BulkResult = Schemas['BulkResult']
export type Batch = Schemas['Batch']
export type BatchUpdate = Schemas['BatchUpdate']
export type ChargeReview = Schemas['ChargeReview']
export type ReviewRequest = Schemas['ReviewRequest']
export type Callback = Schemas['Callback']
export type Persona = Schemas['Persona']
export type Status = Schemas['Status']
export type RowOutcome = Schemas['RowOutcome']
export type UploadSummary = Schemas['UploadSummary']
export type JobEvent = Schemas['Event']
export type Problem = Schemas['ProblemDetails']
export type FieldError = Schemas['FieldError']

/** A page of a list. */
export interface ListPage<T> {
  data: T[]
  next_cursor: string | null
  has_more: boolean
}

export type Method = 'get' | 'post' | 'put' | 'patch' | 'delete'

/** The paths that have a method. */
export type PathOf<M extends Method> = {
  [P in keyof paths]: Exclude<paths[P][M], undefined> extends never ? never : P
}[keyof paths]

/** The operation of a method and a path. */
export type Operation<M extends Method, P extends keyof paths> = Exclude<paths[P][M], undefined>

type Parameters<O, K extends string> = O extends { parameters: { [key in K]?: infer T } } ? Exclude<T, undefined> : never

type JsonBody<O> = O extends { requestBody?: infer B }
  ? Exclude<B, undefined> extends { content: { 'application/json': infer T } }
    ? T
    : never
  : never

type Needed<K extends string, T> = [T] extends [never] ? { [key in K]?: never } : { [key in K]: T }

type MaybeNeeded<K extends string, T> = [T] extends [never] ? { [key in K]?: never } : { [key in K]?: T | undefined }

/** Filters by metadata, which `list_jobs` takes beside its parameters: `{ 'metadata.customer': '17' }`. */
export type FreeQuery = { [name: `metadata.${string}`]: string }

/** What a call sends. */
export type Input<O> = Needed<'path', Parameters<O, 'path'>> &
  MaybeNeeded<'query', Parameters<O, 'query'> & FreeQuery> &
  (O extends { requestBody: unknown } ? Needed<'body', JsonBody<O>> : MaybeNeeded<'body', JsonBody<O>>)

type Content<R> = R extends { content: { 'application/json': infer T } } ? T : undefined

/** What a call returns. */
export type Output<O> = O extends { responses: infer R } ? Content<R[keyof R & (200 | 201 | 202 | 204)]> : never

/** The items of a list. */
export type ItemOf<L> = L extends { data: (infer T)[] } ? T : never
