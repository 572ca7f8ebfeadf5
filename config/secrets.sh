#!/bin/sh
# `make secrets`: generate the random secrets of docker-compose.yml. Existing ones are kept.
set -eu
umask 077

random() {
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

# Print the value of a variable in .env: the last line counts, without quotes and comments.
value_of() {
    sed -n "s/^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}$1[[:space:]]*=[[:space:]]*//p" .env | tail -n 1 |
        sed -e "s/^'\([^']*\)'.*/\1/;t" -e 's/^"\([^"]*\)".*/\1/;t' -e 's/^#.*//' -e 's/[[:space:]]\{1,\}#.*//' \
            -e 's/[[:space:]]*$//'
}

is_set() {
    value_of "$1" | grep -q '[^[:space:]]'
}

# Report a setting with fewer characters than these; of several logins, each password is checked.
check_length() {
    if value_of "$1" | tr , '\n' | sed 's/^[^:]*://' | awk -v min="$2" 'length < min { short = 1 } END { exit !short }'
    then
        echo "too short in .env: $1, which needs $2 characters. Remove its line to generate a new one"
    fi
}

# Add a line to .env unless the setting is there.
make_setting() {
    if ! is_set "$1"; then
        printf '%s=%s\n' "$1" "$2" >> .env
        echo "added $1 to .env"
    fi
}

touch .env
chmod 600 .env
if [ -n "$(tail -c 1 .env)" ]; then
    echo >> .env
fi
if is_set VOICEQUEUE_SECRET && ! is_set VOICEQUEUE_CALLBACK_SECRET; then
    echo "missing in .env: VOICEQUEUE_CALLBACK_SECRET=… The secret in use is derived from VOICEQUEUE_SECRET;" \
        "\`voicequeue callbacks --root-secret\` prints it"
else
    make_setting VOICEQUEUE_CALLBACK_SECRET "whsec_$(random)" # hexadecimal digits are valid base64
fi
make_setting VOICEQUEUE_SECRET "$(random)"
make_setting VALKEY_APP_PASSWORD "$(random)"
make_setting VALKEY_WORKER_PASSWORD "$(random)"
make_setting VALKEY_GATEWAY_PASSWORD "$(random)"
make_setting VALKEY_FLOWER_PASSWORD "$(random)"
make_setting FLOWER_BASIC_AUTH "operator:$(random)"
check_length VOICEQUEUE_CALLBACK_SECRET 38
check_length VOICEQUEUE_SECRET 32
check_length VALKEY_APP_PASSWORD 32
check_length VALKEY_WORKER_PASSWORD 32
check_length VALKEY_GATEWAY_PASSWORD 32
check_length VALKEY_FLOWER_PASSWORD 32
check_length VALKEY_PRODUCER_PASSWORD 32
check_length VALKEY_MONITOR_PASSWORD 32
check_length FLOWER_BASIC_AUTH 12

# Containers read these files as other users. The folder denies access to all other users of this machine.
mkdir -p .secrets
chmod 700 .secrets
if [ ! -s .secrets/grafana_password ]; then
    random > .secrets/grafana_password
    chmod 644 .secrets/grafana_password
    echo "created .secrets/grafana_password"
fi
if ! is_set MUSICAPI_KEY; then
    echo "missing in .env: MUSICAPI_KEY=…"
fi
