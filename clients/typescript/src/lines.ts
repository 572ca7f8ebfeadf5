// Lines and server-sent events of a response that lasts.

/** Yields the lines of a response as they arrive. */
export async function* linesOf(response: Response): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const piece of response.body ?? []) {
    const lines = (rest + decoder.decode(piece, { stream: true })).split('\n')
    rest = lines.pop() ?? ''
    yield* lines
  }
  if (rest !== '') yield rest
}

export interface ServerEvent {
  id: string
  /** Empty for a comment that only names an id. */
  type: string
  data: string
}

/** Yields the server-sent events of a response. */
export async function* eventsOf(response: Response): AsyncGenerator<ServerEvent> {
  let event: ServerEvent = { id: '', type: '', data: '' }
  for await (const line of linesOf(response)) {
    if (line === '') {
      if (event.id !== '') yield event
      event = { id: '', type: '', data: '' }
    }
    const [, field, value] = /^(id|event|data): ?(.*)$/.exec(line) ?? []
    if (field === 'id') event.id = value ?? ''
    if (field === 'event') event.type = value ?? ''
    if (field === 'data') event.data += value ?? ''
  }
}
