#!/bin/sh
# Send a command to Valkey as its administrator: docker compose exec valkey admin CONFIG GET save
REDISCLI_AUTH=$(cat "${VALKEY_RUN:-/run/valkey}/admin")
export REDISCLI_AUTH
exec valkey-cli --user admin "$@"
