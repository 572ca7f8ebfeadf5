#!/bin/sh
# Start Valkey with these arguments and the users of users.acl. Their passwords come from the environment and are stored
# as hashes only. The administrator's password is generated at each start; admin.sh, in the container, reads it.
set -eu
umask 077
run=${VALKEY_RUN:-/run/valkey}

hash() {
    printf %s "$1" | sha256sum | cut -d ' ' -f 1
}

od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$run/admin"
{
    sed -e '/^#/d' -e '/^$/d' \
        -e "s/PREFIX/${VOICEQUEUE_PREFIX:-voicequeue}/g" \
        -e "s/APP_HASH/$(hash "${VALKEY_APP_PASSWORD:?is not set}")/" \
        -e "s/FLOWER_HASH/$(hash "${VALKEY_FLOWER_PASSWORD:?is not set}")/" \
        "$(dirname "$0")/users.acl"
    echo "user admin reset on #$(hash "$(cat "$run/admin")") ~* &* +@all"
} > "$run/users.acl"
unset VALKEY_APP_PASSWORD VALKEY_FLOWER_PASSWORD
exec valkey-server "$@" --aclfile "$run/users.acl"
