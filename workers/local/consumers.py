"""Restarts the processes of the local stack that run without consuming their queues."""

from __future__ import annotations

import socket
from collections.abc import Callable

from redis import Redis
from redis.exceptions import RedisError

from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.consumption import stalled_consumers

#: Seconds between two checks.
CHECK_INTERVAL_S = 5.0


def restart_stalled(redis: Redis, prefix: str, restart: Callable[[int, str], object]) -> None:
    """Call `restart` with the process id and the reason for each process of this host that does not consume a queue.

    Without Redis there is nothing to consume, and nothing is restarted.
    """
    store = JobStore(redis, prefix)
    try:
        now = store.clock()
        running = [process for heartbeats in store.heartbeats.values() for process in heartbeats.alive(now)]
    except RedisError:
        return
    for consumer in stalled_consumers(running):
        if consumer.process.host == socket.gethostname() and (pid := consumer.process.facts.get("pid")):
            restart(int(pid), str(consumer))
