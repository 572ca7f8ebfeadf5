"""The gateway's pulse: it says every few seconds that it lives, and what it runs with."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from voicequeue.pulses import Pulses

#: How often (seconds).
EVERY_S = 5.0


@asynccontextmanager
async def alive(pulses: Pulses, facts: Mapping[str, Any]) -> AsyncIterator[None]:
    """Say so meanwhile, and that it is over at the end; where Redis is away, when it is back."""
    name = f"gateway-{os.getpid()}@{socket.gethostname()}"
    saying = asyncio.create_task(_say_so(pulses, name, facts))
    try:
        yield
    finally:
        saying.cancel()
        with suppress(RedisError):
            await run_in_threadpool(pulses.gone, name)


async def _say_so(pulses: Pulses, name: str, facts: Mapping[str, Any]) -> None:
    while True:
        with suppress(RedisError):
            await run_in_threadpool(pulses.heard, name, time.time(), facts)
        await asyncio.sleep(EVERY_S)
