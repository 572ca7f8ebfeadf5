"""The gateway's heartbeat: its version and settings, written to Redis every few seconds."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from voicequeue.storage.connection.clock import Clock
from voicequeue.storage.heartbeats import Heartbeats
from workers.process_info import host_facts

#: Seconds between two heartbeats.
HEARTBEAT_INTERVAL_S = 5.0


@asynccontextmanager
async def send_heartbeats(heartbeats: Heartbeats, clock: Clock, facts: Mapping[str, Any]) -> AsyncIterator[None]:
    """Send heartbeats while the body runs, and sign off afterwards. Outages of Redis are ignored."""
    name = f"gateway-{os.getpid()}@{socket.gethostname()}"
    sending = asyncio.create_task(_repeat(lambda: heartbeats.record(name, clock(), {**facts, **host_facts()})))
    try:
        yield
    finally:
        sending.cancel()
        with suppress(RedisError):
            await run_in_threadpool(heartbeats.remove, name)


async def _repeat(send_heartbeat: Callable[[], None]) -> None:
    while True:
        with suppress(RedisError):
            await run_in_threadpool(send_heartbeat)
        await asyncio.sleep(HEARTBEAT_INTERVAL_S)
