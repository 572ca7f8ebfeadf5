"""The gateway's pulse: it says every few seconds that it lives, and what it runs with."""

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
from voicequeue.storage.heartbeats import Pulses

#: How often (seconds).
EVERY_S = 5.0


@asynccontextmanager
async def alive(pulses: Pulses, clock: Clock, facts: Mapping[str, Any]) -> AsyncIterator[None]:
    """Say so meanwhile, and that it is over at the end; where Redis is away, when it is back."""
    name = f"gateway-{os.getpid()}@{socket.gethostname()}"
    saying = asyncio.create_task(_say_so(lambda: pulses.heard(name, clock(), facts)))
    try:
        yield
    finally:
        saying.cancel()
        with suppress(RedisError):
            await run_in_threadpool(pulses.gone, name)


async def _say_so(heartbeat: Callable[[], None]) -> None:
    while True:
        with suppress(RedisError):
            await run_in_threadpool(heartbeat)
        await asyncio.sleep(EVERY_S)
