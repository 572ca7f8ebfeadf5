"""arq: one coroutine for each job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import uvloop
from acalls import open_session, sing
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from work import CONCURRENCY, REDIS_URL, Job, in_slices, result_of, serve_async

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
SETTINGS = RedisSettings.from_dsn(REDIS_URL)

#: By default it writes a line for each job; the others are quiet too.
LOG = {"version": 1, "loggers": {"arq": {"level": "WARNING"}}}


async def run(ctx: dict[str, Any], job: Job) -> None:
    """A job from its start to its end."""
    await ctx["redis"].hset(*result_of(job, await sing(ctx["session"], job)))


async def startup(ctx: dict[str, Any]) -> None:
    """Open the session."""
    ctx["session"] = open_session()


class WorkerSettings:
    """What arq's worker reads."""

    functions = (run,)
    on_startup = startup
    redis_settings = SETTINGS
    max_jobs = CONCURRENCY
    poll_delay = 0.1  # by default half a second, in which at most `max_jobs` begin
    keep_result = 0


async def one(pool: ArqRedis, job: Job) -> None:
    """Enqueue one."""
    await pool.enqueue_job("run", job)


async def many(pool: ArqRedis, jobs: Iterator[Job]) -> None:
    """Enqueue some at a time: arq has no call for many."""
    await in_slices(partial(one, pool), jobs)


async def main() -> None:
    """Enqueue as told."""
    pool = await create_pool(SETTINGS)
    await serve_async(partial(one, pool), partial(many, pool))


if __name__ == "__main__":
    asyncio.run(main())
