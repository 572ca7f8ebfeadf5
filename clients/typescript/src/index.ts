// The client of voicequeue's HTTP API.

export { verifyCallback, type CallbackInput, type CallbackPayload } from './callbacks.ts'
export { VoiceQueue, type CallOptions, type QueueEvent, type WaitOptions } from './client.ts'
export * from './errors.ts'
export type { Options } from './transport.ts'
export type * from './types.ts'
export type { components, operations, paths } from './api.ts'
