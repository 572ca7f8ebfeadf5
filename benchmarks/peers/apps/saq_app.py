"""saq: one coroutine for each job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from acalls import open_session, sing
from saq import Queue
from work import CONCURRENCY, REDIS_URL, Job, in_slices, result_of, serve_async

queue = Queue.from_url(REDIS_URL)


async def startup(ctx: dict[str, Any]) -> None:
    """Open the session."""
    ctx["session"] = open_session()


async def run(ctx: dict[str, Any], *, work: Job) -> None:
    """A job from its start to its end."""
    await queue.redis.hset(*result_of(work, await sing(ctx["session"], work)))


settings = {"queue": queue, "functions": [run], "concurrency": CONCURRENCY, "startup": startup}


async def one(job: Job) -> None:
    """Enqueue one: without a time limit, and forgotten when it is done."""
    await queue.enqueue("run", work=job, timeout=0, ttl=-1)


async def many(jobs: Iterator[Job]) -> None:
    """Enqueue some at a time: saq has no call for many."""
    await in_slices(one, jobs)


async def main() -> None:
    """Enqueue as told."""
    await queue.connect()
    await serve_async(one, many)


if __name__ == "__main__":
    asyncio.run(main())
