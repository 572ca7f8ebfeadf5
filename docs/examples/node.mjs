// Node without packages: create one voice with a song over HTTP.
//
//     node docs/examples/node.mjs
//
// Needs VOICEQUEUE_GATEWAY_URL and VOICEQUEUE_API_KEY, an API key or the local token.

const url = process.env.VOICEQUEUE_GATEWAY_URL ?? 'http://127.0.0.1:8000'
const headers = { 'content-type': 'application/json', authorization: `Bearer ${process.env.VOICEQUEUE_API_KEY}` }

async function call(path, options = {}) {
  const response = await fetch(url + path, { ...options, headers: { ...headers, ...options.headers } })
  const body = await response.json()
  if (!response.ok) throw new Error(`${body.title}: ${JSON.stringify(body.errors ?? body.detail)}`)
  return body
}

const job = await call('/v1/jobs', {
  method: 'POST',
  headers: { 'idempotency-key': 'node-example-1' },
  body: JSON.stringify({
    audio_url: 'https://example.com/ana.wav',
    song: { title: 'Harbour Lights', prompt: '[Verse]\nThe harbour lights are counting ships' },
  }),
})
console.log(`${job.id} is ${job.state}; it will cost ${job.estimated_credits} credits`)

let current = job
while (!['succeeded', 'failed', 'cancelled', 'unsure'].includes(current.state)) {
  await new Promise((resolve) => setTimeout(resolve, 1000))
  current = await call(`/v1/jobs/${job.id}`)
}
console.log(current.state, ...current.clips.map((clip) => clip.audio_url))
