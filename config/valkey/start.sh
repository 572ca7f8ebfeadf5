#!/bin/sh
# Start Valkey with these arguments and the users of users.acl. Their passwords come from VALKEY_…_PASSWORD, or from the
# files that VALKEY_…_PASSWORD_FILE names, and are stored as hashes only. The administrator's password is generated at each
# start; admin.sh, in the container, reads it.
set -eu
umask 077
run=${VALKEY_RUN:-/run/valkey}

hash() {
    printf %s "$1" | sha256sum | cut -d ' ' -f 1
}

# Print the edit that inserts a user's password hash; without a password it deletes an optional user.
user() {
    password=$(eval "printf %s \"\${VALKEY_$1_PASSWORD:-}\"")
    file=$(eval "printf %s \"\${VALKEY_$1_PASSWORD_FILE:-}\"")
    if [ -z "$password" ] && [ -n "$file" ]; then
        password=$(cat "$file")
    fi
    if [ -n "$password" ]; then
        echo "s/$1_HASH/$(hash "$password")/"
    elif [ "${2:-}" = optional ]; then
        echo "/#$1_HASH/d"
    else
        echo "VALKEY_$1_PASSWORD is not set, and VALKEY_$1_PASSWORD_FILE names no file with a password" >&2
        return 1
    fi
}

# Print 60 % of the memory that the container may use; nothing without a limit. The rest is for copies while the file is
# rewritten. At this limit Valkey refuses writes; at the container's, it would be killed.
memory() {
    limit=$(cat "${VALKEY_CGROUP:-/sys/fs/cgroup}/memory.max" 2>/dev/null || true)
    case $limit in
    "" | *[!0-9]*) ;;
    *) echo $((limit / 10 * 6)) ;;
    esac
}

od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$run/admin"
edits="s/PREFIX/${VOICEQUEUE_PREFIX:-voicequeue}/g"
for name in APP WORKER GATEWAY FLOWER; do
    edit=$(user "$name")
    edits="$edits;$edit"
done
for name in PRODUCER MONITOR; do
    edit=$(user "$name" optional)
    edits="$edits;$edit"
done
{
    sed -e '/^#/d' -e '/^$/d' -e "$edits" "$(dirname "$0")/users.acl"
    echo "user admin reset on #$(hash "$(cat "$run/admin")") ~* &* +@all"
} > "$run/users.acl"
case " $* " in
*" --maxmemory "*) ;;
*)
    limit=$(memory)
    if [ -n "$limit" ]; then
        set -- "$@" --maxmemory "$limit"
    fi
    ;;
esac
unset VALKEY_APP_PASSWORD VALKEY_WORKER_PASSWORD VALKEY_GATEWAY_PASSWORD VALKEY_FLOWER_PASSWORD
unset VALKEY_PRODUCER_PASSWORD VALKEY_MONITOR_PASSWORD
exec valkey-server "$@" --aclfile "$run/users.acl"
