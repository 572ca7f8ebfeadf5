#!/bin/sh
# The healthcheck of a container that consumes queues: `voicequeue alive` with these arguments. Docker restarts a container
# whose process ends, but not an unhealthy one. So the third failure in a row stops the process as `docker stop` does:
# requests in progress are completed.
set -u
failures=${PROBE_FOLDER:-/tmp}/failed_probes

voicequeue alive "$@"
code=$?
if [ "$code" -ne 1 ]; then # 1: a queue is not consumed; anything else is not cured by a restart
    rm -f "$failures"
    exit "$code"
fi
echo failed >> "$failures"
if [ "$(wc -l < "$failures")" -ge 3 ]; then
    rm -f "$failures"
    process=${PROBE_PID:-1}
    # Outside a container, 1 is the init process of the system.
    if grep -qs workers "/proc/$process/cmdline"; then
        echo "stopping the process after three failures in a row"
        kill -s TERM "$process"
    fi
fi
exit 1
