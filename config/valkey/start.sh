#!/bin/sh
# Start Valkey with these arguments and the users of users.acl. Their passwords come from the environment and are stored
# as hashes only. The administrator's password is generated at each start; admin.sh, in the container, reads it.
set -eu
umask 077
run=${VALKEY_RUN:-/run/valkey}

hash() {
    printf %s "$1" | sha256sum | cut -d ' ' -f 1
}

# Print the edit that inserts a user's password hash; without a password it deletes the user.
user() {
    if [ -n "$2" ]; then
        echo "s/$1_HASH/$(hash "$2")/"
    else
        echo "/#$1_HASH/d"
    fi
}

od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$run/admin"
{
    sed -e '/^#/d' -e '/^$/d' \
        -e "s/PREFIX/${VOICEQUEUE_PREFIX:-voicequeue}/g" \
        -e "$(user APP "${VALKEY_APP_PASSWORD:?is not set}")" \
        -e "$(user WORKER "${VALKEY_WORKER_PASSWORD:?is not set}")" \
        -e "$(user GATEWAY "${VALKEY_GATEWAY_PASSWORD:?is not set}")" \
        -e "$(user FLOWER "${VALKEY_FLOWER_PASSWORD:?is not set}")" \
        -e "$(user PRODUCER "${VALKEY_PRODUCER_PASSWORD:-}")" \
        -e "$(user MONITOR "${VALKEY_MONITOR_PASSWORD:-}")" \
        "$(dirname "$0")/users.acl"
    echo "user admin reset on #$(hash "$(cat "$run/admin")") ~* &* +@all"
} > "$run/users.acl"
unset VALKEY_APP_PASSWORD VALKEY_WORKER_PASSWORD VALKEY_GATEWAY_PASSWORD VALKEY_FLOWER_PASSWORD
unset VALKEY_PRODUCER_PASSWORD VALKEY_MONITOR_PASSWORD
exec valkey-server "$@" --aclfile "$run/users.acl"
