"""streaQ: one coroutine per job, or a task per step whose poll raises `StreaqRetry`.

Its workers check delayed tasks every half second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import islice

import acalls
from aiohttp import ClientSession
from streaq import Worker
from streaq.types import StreaqRetry
from work import AGAIN_S, CONCURRENCY, FIRST_S, REDIS_URL, STEPS, Job, result_of, serve_async

#: Jobs per call of `enqueue_many`.
SLICE = 500

FIRST, AGAIN = timedelta(seconds=FIRST_S) or None, timedelta(seconds=AGAIN_S)


@asynccontextmanager
async def lifespan() -> AsyncIterator[ClientSession]:
    """Open the session for the lifetime of the worker."""
    logging.getLogger("streaq").setLevel(logging.WARNING)  # no line per job, as with the other queues
    async with acalls.open_session() as session:
        yield session


worker = Worker(
    redis_url=REDIS_URL,
    concurrency=CONCURRENCY,
    lifespan=lifespan,
    anyio_kwargs={"use_uvloop": True},
)


@worker.task(ttl=0)
async def run(job: Job) -> None:
    """Run a whole job; its result is stored by the app, not by the queue."""
    await _keep(job, await acalls.sing(worker.context, job))


@worker.task(ttl=0)
async def voice(job: Job) -> None:
    """Order a voice."""
    await poll_voice.enqueue(job, await acalls.order_voice(worker.context, job)).start(delay=FIRST)


@worker.task(ttl=0, max_tries=None, silent=True)  # otherwise it logs a traceback per retry
async def poll_voice(job: Job, task_id: str) -> None:
    """Poll the voice, then order the song."""
    result = await acalls.poll(worker.context, task_id)
    if result is None:
        raise StreaqRetry(delay=AGAIN)
    await song.enqueue(job, result["persona_id"])


@worker.task(ttl=0)
async def song(job: Job, persona_id: str) -> None:
    """Order a song."""
    await poll_song.enqueue(job, await acalls.order_song(worker.context, job, persona_id)).start(delay=FIRST)


@worker.task(ttl=0, max_tries=None, silent=True)
async def poll_song(job: Job, task_id: str) -> None:
    """Poll the song, then store it."""
    result = await acalls.poll(worker.context, task_id)
    if result is None:
        raise StreaqRetry(delay=AGAIN)
    await _keep(job, result)


async def _keep(job: Job, clips: object) -> None:
    field, name, value = result_of(job, clips)
    await worker.redis.hset(field, {name: value})


first = voice if STEPS else run


async def many(jobs: Iterator[Job]) -> None:
    """Enqueue some in each call."""
    while some := [first.enqueue(job) for job in islice(jobs, SLICE)]:
        await worker.enqueue_many(some)


async def one(job: Job) -> None:
    """Enqueue one."""
    await first.enqueue(job)


async def main() -> None:
    """Run the producer."""
    async with worker:
        await serve_async(one, many)


if __name__ == "__main__":
    asyncio.run(main())
