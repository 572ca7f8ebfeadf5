#!/bin/sh
# `make secrets`: generate the random secrets of docker-compose.yml, one file each in .secrets/. Existing ones are kept.
# A secret that is set in .env (`make up` reads it there) is copied.
set -eu
umask 077
folder=.secrets

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

has_content() {
    grep -qs '[^[:space:]]' "$folder/$1"
}

# Print the setting of a file: voicequeue_secret is the file of VOICEQUEUE_SECRET.
setting_of() {
    printf %s "$1" | tr '[:lower:]' '[:upper:]'
}

# Containers read these files as other users. The folder denies access to all other users of this machine.
write() {
    cat > "$folder/$1"
    chmod 644 "$folder/$1"
}

# Create the file of a secret, unless it has content: from .env, else from the second argument, if there is one.
make_secret() {
    setting=$(setting_of "$1")
    if has_content "$1"; then
        if is_set "$setting" && [ "$(value_of "$setting")" != "$(cat "$folder/$1")" ]; then
            echo "$setting in .env differs from $folder/$1, which containers use"
        fi
    elif is_set "$setting"; then
        value_of "$setting" | tr -d '\n' | write "$1"
        echo "copied $setting from .env to $folder/$1"
    elif [ -n "${2:-}" ]; then
        printf %s "$2" | write "$1"
        echo "created $folder/$1"
    fi
}

# Write the URL of Valkey for a user of its own, from the password. A URL of another Redis is kept.
make_redis_url() {
    password=$(cat "$folder/valkey_$1_password")
    case $password in
    *[!A-Za-z0-9._~-]*) echo "$folder/valkey_$1_password: use letters and digits, because it is part of a URL" ;;
    esac
    url="redis://$1:$password@valkey:6379/0"
    case $(cat "$folder/$1_redis_url" 2>/dev/null || true) in
    "$url") ;;
    "" | "redis://$1:"*"@valkey:6379/0")
        printf %s "$url" | write "$1_redis_url"
        echo "created $folder/$1_redis_url"
        ;;
    esac
}

# Report a secret with fewer characters than these; of several logins, each password is checked.
check_length() {
    if has_content "$1" && tr , '\n' < "$folder/$1" | sed 's/^[^:]*://' |
        awk -v min="$2" 'length < min { short = 1 } END { exit !short }'
    then
        echo "too short: $folder/$1, which needs $2 characters. Remove the file, and its line in .env, to generate a new one"
    fi
}

touch .env
chmod 600 .env
if [ -n "$(tail -c 1 .env)" ]; then
    echo >> .env
fi
mkdir -p "$folder"
chmod 700 "$folder"

if ! has_content voicequeue_callback_secret && ! is_set VOICEQUEUE_CALLBACK_SECRET &&
    { has_content voicequeue_secret || is_set VOICEQUEUE_SECRET; }
then
    echo "missing: $folder/voicequeue_callback_secret. The secret in use is derived from VOICEQUEUE_SECRET;" \
        "\`voicequeue callbacks --root-secret\` prints it"
else
    make_secret voicequeue_callback_secret "whsec_$(random)" # hexadecimal digits are valid base64
fi
make_secret voicequeue_secret "$(random)"
make_secret flower_basic_auth "operator:$(random)"
make_secret grafana_password "$(random)"
for user in app worker gateway flower; do
    make_secret "valkey_${user}_password" "$(random)"
done
for user in worker gateway flower; do
    make_redis_url "$user"
done
# Users that exist only with a password.
for user in producer monitor; do
    make_secret "valkey_${user}_password"
    [ -e "$folder/valkey_${user}_password" ] || write "valkey_${user}_password" < /dev/null
done
make_secret musicapi_key

check_length voicequeue_callback_secret 38
check_length voicequeue_secret 32
for user in app worker gateway flower producer monitor; do
    check_length "valkey_${user}_password" 32
done
check_length flower_basic_auth 12

# The services of docker-compose.yml but those of the demo and the monitoring.
if ! is_set COMPOSE_PROFILES; then
    echo COMPOSE_PROFILES=live >> .env
    echo "added COMPOSE_PROFILES=live to .env"
elif ! value_of COMPOSE_PROFILES | tr , '\n' | grep -qx ' *live *'; then
    echo "COMPOSE_PROFILES in .env does not contain live: docker compose up starts no worker"
fi
if ! has_content musicapi_key; then
    echo "missing: $folder/musicapi_key. Write the key of your account into it"
fi
