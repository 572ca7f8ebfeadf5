#!/bin/sh
# curl: create one voice with a song over HTTP. Needs VOICEQUEUE_GATEWAY_URL and VOICEQUEUE_API_KEY, an API key or the local token.
set -eu
url=${VOICEQUEUE_GATEWAY_URL:-http://127.0.0.1:8000}

# Pass the key through a pipe: every user of the machine can see the arguments of a command.
call() {
  printf 'header = "Authorization: Bearer %s"\n' "${VOICEQUEUE_API_KEY:?}" |
    curl --config - --silent --show-error --fail-with-body "$@"
}

job=$(call "$url/v1/jobs" --header 'Content-Type: application/json' --data '{
  "audio_url": "https://example.com/ana.wav",
  "song": {"title": "Harbour Lights", "prompt": "[Verse]\nThe harbour lights are counting ships"}
}' --header 'Idempotency-Key: curl-example-1')
id=$(printf %s "$job" | sed 's/.*"id": *"\([a-z0-9]*\)".*/\1/')

until call "$url/v1/jobs/$id" | grep -E '"state": *"(succeeded|failed|cancelled|unsure)"' >/dev/null; do sleep 1; done
call "$url/v1/jobs/$id"
