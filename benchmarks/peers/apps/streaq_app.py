"""streaQ: one coroutine for each job."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice

from acalls import open_session, sing
from aiohttp import ClientSession
from streaq import Worker
from work import CONCURRENCY, REDIS_URL, Job, result_of, serve_async

#: Jobs in one call of `enqueue_many`.
SLICE = 500


@asynccontextmanager
async def lifespan() -> AsyncIterator[ClientSession]:
    """The session, while the worker lives."""
    logging.getLogger("streaq").setLevel(logging.WARNING)  # a line for each job otherwise; the others are quiet too
    async with open_session() as session:
        yield session


worker = Worker(
    redis_url=REDIS_URL,
    concurrency=CONCURRENCY,
    lifespan=lifespan,
    anyio_kwargs={"use_uvloop": True},
)


@worker.task(ttl=0)
async def run(job: Job) -> None:
    """A job from its start to its end; its result is kept by us, not by the queue."""
    field, name, value = result_of(job, await sing(worker.context, job))
    await worker.redis.hset(field, {name: value})


async def many(jobs: Iterator[Job]) -> None:
    """Enqueue some in each call."""
    while some := [run.enqueue(job) for job in islice(jobs, SLICE)]:
        await worker.enqueue_many(some)


async def one(job: Job) -> None:
    """Enqueue one."""
    await run.enqueue(job)


async def main() -> None:
    """Enqueue as told."""
    async with worker:
        await serve_async(one, many)


if __name__ == "__main__":
    asyncio.run(main())
