#!/bin/sh
# `make secrets`: the random secrets of docker-compose.yml, each made once. What is there stays as it is.
set -eu
umask 077

random() {
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

# What .env says: of several lines the last, without quotes and comments.
value_of() {
    sed -n "s/^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}$1[[:space:]]*=[[:space:]]*//p" .env | tail -n 1 |
        sed -e "s/^'\([^']*\)'.*/\1/;t" -e 's/^"\([^"]*\)".*/\1/;t' -e 's/^#.*//' -e 's/[[:space:]]\{1,\}#.*//' \
            -e 's/[[:space:]]*$//'
}

is_set() {
    value_of "$1" | grep -q '[^[:space:]]'
}

# Name a setting that has fewer characters than these, of several logins the password of any.
check_length() {
    if value_of "$1" | tr , '\n' | sed 's/^[^:]*://' | awk -v least="$2" 'length < least { short = 1 } END { exit !short }'
    then
        echo "too short in .env: $1, which needs $2 characters. Take its line out to have it made"
    fi
}

# A line in .env, unless there is one.
make_setting() {
    if ! is_set "$1"; then
        printf '%s=%s\n' "$1" "$2" >> .env
        echo "made $1 in .env"
    fi
}

touch .env
chmod 600 .env
if [ -n "$(tail -c 1 .env)" ]; then
    echo >> .env
fi
if is_set VOICEQUEUE_SECRET && ! is_set VOICEQUEUE_CALLBACK_SECRET; then
    echo "missing in .env: VOICEQUEUE_CALLBACK_SECRET=… What receivers know until now follows from VOICEQUEUE_SECRET," \
        "and \`voicequeue callbacks --root-secret\` prints it"
else
    make_setting VOICEQUEUE_CALLBACK_SECRET "whsec_$(random)" # base64 as well
fi
make_setting VOICEQUEUE_SECRET "$(random)"
make_setting VALKEY_APP_PASSWORD "$(random)"
make_setting VALKEY_FLOWER_PASSWORD "$(random)"
make_setting FLOWER_BASIC_AUTH "operator:$(random)"
check_length VOICEQUEUE_CALLBACK_SECRET 38
check_length VOICEQUEUE_SECRET 32
check_length VALKEY_APP_PASSWORD 32
check_length VALKEY_FLOWER_PASSWORD 32
check_length FLOWER_BASIC_AUTH 12

# Containers read these files as users of their own. The folder keeps all other users of this machine out.
mkdir -p .secrets
chmod 700 .secrets
if [ ! -s .secrets/grafana_password ]; then
    random > .secrets/grafana_password
    chmod 644 .secrets/grafana_password
    echo "made .secrets/grafana_password"
fi
if ! is_set MUSICAPI_KEY; then
    echo "missing in .env: MUSICAPI_KEY=…"
fi
