"""arq: one coroutine per job, or a task per step whose poll raises `Retry` until there is a result."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import acalls
import uvloop
from arq import Retry, create_pool, func
from arq.connections import ArqRedis, RedisSettings
from work import AGAIN_S, CONCURRENCY, FIRST_S, REDIS_URL, STEPS, Job, in_slices, result_of, serve_async

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
SETTINGS = RedisSettings.from_dsn(REDIS_URL)

#: By default arq logs a line per job; the other queues do not log jobs either.
LOG = {"version": 1, "loggers": {"arq": {"level": "WARNING"}}}

#: The default is five, and each poll counts as one.
TRIES = 1_000_000


async def run(ctx: dict[str, Any], job: Job) -> None:
    """Run a whole job."""
    await ctx["redis"].hset(*result_of(job, await acalls.sing(ctx["session"], job)))


async def voice(ctx: dict[str, Any], job: Job) -> None:
    """Order a voice."""
    task_id = await acalls.order_voice(ctx["session"], job)
    await ctx["redis"].enqueue_job("poll_voice", job, task_id, _defer_by=FIRST_S)


async def poll_voice(ctx: dict[str, Any], job: Job, task_id: str) -> None:
    """Poll the voice, then order the song."""
    result = await acalls.poll(ctx["session"], task_id)
    if result is None:
        raise Retry(defer=AGAIN_S)
    await ctx["redis"].enqueue_job("song", job, result["persona_id"])


async def song(ctx: dict[str, Any], job: Job, persona_id: str) -> None:
    """Order a song."""
    task_id = await acalls.order_song(ctx["session"], job, persona_id)
    await ctx["redis"].enqueue_job("poll_song", job, task_id, _defer_by=FIRST_S)


async def poll_song(ctx: dict[str, Any], job: Job, task_id: str) -> None:
    """Poll the song, then store it."""
    result = await acalls.poll(ctx["session"], task_id)
    if result is None:
        raise Retry(defer=AGAIN_S)
    await ctx["redis"].hset(*result_of(job, result))


async def startup(ctx: dict[str, Any]) -> None:
    """Open the session."""
    ctx["session"] = acalls.open_session()


class WorkerSettings:
    """The settings of arq's worker."""

    functions = (run, voice, func(poll_voice, max_tries=TRIES), song, func(poll_song, max_tries=TRIES))
    on_startup = startup
    redis_settings = SETTINGS
    max_jobs = CONCURRENCY
    poll_delay = 0.1  # the default of 0.5 s limits starts to `max_jobs` per half second
    keep_result = 0


async def one(pool: ArqRedis, job: Job) -> None:
    """Enqueue one."""
    await pool.enqueue_job("voice" if STEPS else "run", job)


async def many(pool: ArqRedis, jobs: Iterator[Job]) -> None:
    """Enqueue some at a time: arq has no call for many."""
    await in_slices(partial(one, pool), jobs)


async def main() -> None:
    """Run the producer."""
    pool = await create_pool(SETTINGS)
    await serve_async(partial(one, pool), partial(many, pool))


if __name__ == "__main__":
    asyncio.run(main())
