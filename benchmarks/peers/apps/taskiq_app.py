"""taskiq with taskiq-redis: one coroutine for each job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated

from acalls import open_session, sing
from redis.asyncio import Redis
from taskiq import Context, TaskiqDepends, TaskiqEvents, TaskiqState
from taskiq_redis import RedisStreamBroker
from work import REDIS_URL, Job, in_slices, result_of, serve_async

broker = RedisStreamBroker(REDIS_URL)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def startup(state: TaskiqState) -> None:
    """Open the session."""
    state.session = open_session()
    state.redis = Redis.from_url(REDIS_URL)


@broker.task(task_name="run")
async def run(job: Job, context: Annotated[Context, TaskiqDepends()]) -> None:
    """A job from its start to its end."""
    state = context.state
    await state.redis.hset(*result_of(job, await sing(state.session, job)))


async def many(jobs: Iterator[Job]) -> None:
    """Send some at a time: taskiq has no call for many."""
    await in_slices(run.kiq, jobs)


async def main() -> None:
    """Enqueue as told."""
    await broker.startup()
    await serve_async(run.kiq, many)


if __name__ == "__main__":
    asyncio.run(main())
