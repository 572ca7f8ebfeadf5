#!/bin/sh
# `make secrets`: generate the random secrets of docker-compose.yml. Each is a file of .secrets/ with the name of its setting.
# Existing ones are kept. A secret that is set in .env (`make up` reads it there) is copied.
# With the path of a folder, the files are there, and .env is neither read nor written: `sh config/secrets.sh /etc/…`.
set -eu
umask 077
folder=${1:-.secrets}
if [ $# -eq 0 ]; then dotenv=.env; else dotenv=/dev/null; fi

random() {
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

# Print the value of a variable in .env: the last line counts, without quotes and comments.
value_of() {
    case $settings in *"$1"*) ;; *) return 0 ;; esac # most are not there, and starting sed takes time
    sed -n "s/^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}$1[[:space:]]*=[[:space:]]*//p" "$dotenv" | tail -n 1 |
        sed -e "s/^'\([^']*\)'.*/\1/;t" -e 's/^"\([^"]*\)".*/\1/;t' -e 's/^#.*//' -e 's/[[:space:]]\{1,\}#.*//' \
            -e 's/[[:space:]]*$//'
}

is_set() {
    case $(value_of "$1") in *[![:space:]]*) ;; *) return 1 ;; esac
}

has_content() {
    grep -qs '[^[:space:]]' "$folder/$1"
}

# Print the setting of a file: VOICEQUEUE_SECRET is the file of VOICEQUEUE_SECRET.
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
    if has_content "$1"; then
        if is_set "$1" && [ "$(value_of "$1")" != "$(cat "$folder/$1")" ]; then
            echo "$1 in .env differs from $folder/$1, which containers use"
        fi
    elif is_set "$1"; then
        value_of "$1" | tr -d '\n' | write "$1"
        echo "copied $1 from .env to $folder/$1"
    elif [ -n "${2:-}" ]; then
        printf %s "$2" | write "$1"
        echo "created $folder/$1"
    fi
}

# Write the URL of Valkey for one of its users, from the password: WORKER worker. A URL of another Redis is kept.
make_redis_url() {
    password=$(cat "$folder/VALKEY_$1_PASSWORD")
    case $password in
    *[!A-Za-z0-9._~-]*) echo "$folder/VALKEY_$1_PASSWORD: use letters and digits, because it is part of a URL" ;;
    esac
    url="redis://$2:$password@valkey:6379/0"
    case $(cat "$folder/REDIS_URL_$1" 2>/dev/null || true) in
    "$url") ;;
    "" | "redis://$2:"*"@valkey:6379/0")
        printf %s "$url" | write "REDIS_URL_$1"
        echo "created $folder/REDIS_URL_$1"
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

if [ "$dotenv" = .env ]; then
    touch .env
    chmod 600 .env
    if [ -n "$(tail -c 1 .env)" ]; then
        echo >> .env
    fi
fi
settings=$(cat "$dotenv")
mkdir -p "$folder"
chmod 700 "$folder"

if ! has_content VOICEQUEUE_CALLBACK_SECRET && ! is_set VOICEQUEUE_CALLBACK_SECRET &&
    { has_content VOICEQUEUE_SECRET || is_set VOICEQUEUE_SECRET; }
then
    echo "missing: $folder/VOICEQUEUE_CALLBACK_SECRET. The secret in use is derived from VOICEQUEUE_SECRET;" \
        "\`voicequeue callbacks --root-secret\` prints it"
else
    make_secret VOICEQUEUE_CALLBACK_SECRET "whsec_$(random)" # hexadecimal digits are valid base64
fi
make_secret VOICEQUEUE_SECRET "$(random)"
make_secret FLOWER_BASIC_AUTH "operator:$(random)"
make_secret grafana_password "$(random)"
for user in APP WORKER GATEWAY FLOWER; do
    make_secret "VALKEY_${user}_PASSWORD" "$(random)"
done
make_redis_url WORKER worker
make_redis_url GATEWAY gateway
make_redis_url FLOWER flower
if is_set REDIS_URL && [ "$(value_of REDIS_URL)" != "$(cat "$folder/REDIS_URL_WORKER")" ]; then
    echo "REDIS_URL in .env differs from $folder/REDIS_URL_WORKER, which containers use"
fi
# Users that exist only with a password.
for user in PRODUCER MONITOR; do
    make_secret "VALKEY_${user}_PASSWORD"
    [ -e "$folder/VALKEY_${user}_PASSWORD" ] || write "VALKEY_${user}_PASSWORD" < /dev/null
done
make_secret MUSICAPI_KEY

check_length VOICEQUEUE_CALLBACK_SECRET 38
check_length VOICEQUEUE_SECRET 32
for user in APP WORKER GATEWAY FLOWER PRODUCER MONITOR; do
    check_length "VALKEY_${user}_PASSWORD" 32
done
check_length FLOWER_BASIC_AUTH 12

# The services of docker-compose.yml but those of the demo and the monitoring.
if [ "$dotenv" != .env ]; then
    :
elif ! is_set COMPOSE_PROFILES; then
    echo COMPOSE_PROFILES=live >> .env
    echo "added COMPOSE_PROFILES=live to .env"
elif ! value_of COMPOSE_PROFILES | tr , '\n' | grep -qx ' *live *'; then
    echo "COMPOSE_PROFILES in .env does not contain live: docker compose up starts no worker"
fi
if ! has_content MUSICAPI_KEY; then
    echo "missing: $folder/MUSICAPI_KEY. Write the key of your account into it"
fi
