"""taskiq with taskiq-redis: one coroutine per job, or a task per step whose poll is scheduled again.

Its scheduler, a separate process, checks scheduled tasks once a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import acalls
from redis.asyncio import Redis
from taskiq import Context, TaskiqDepends, TaskiqEvents, TaskiqScheduler, TaskiqState
from taskiq_redis import ListRedisScheduleSource, RedisStreamBroker
from work import AGAIN_S, FIRST_S, REDIS_URL, STEPS, Job, in_slices, result_of, serve_async

broker = RedisStreamBroker(REDIS_URL)
source = ListRedisScheduleSource(REDIS_URL)
scheduler = TaskiqScheduler(broker, sources=[source])

TaskContext = Annotated[Context, TaskiqDepends()]


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def startup(state: TaskiqState) -> None:
    """Open the session."""
    state.session = acalls.open_session()
    state.redis = Redis.from_url(REDIS_URL)


@broker.task(task_name="run")
async def run(job: Job, context: TaskContext) -> None:
    """Run a whole job."""
    state = context.state
    await state.redis.hset(*result_of(job, await acalls.sing(state.session, job)))


@broker.task(task_name="voice")
async def voice(job: Job, context: TaskContext) -> None:
    """Order a voice."""
    await _later(FIRST_S, poll_voice, job, await acalls.order_voice(context.state.session, job))


@broker.task(task_name="poll_voice")
async def poll_voice(job: Job, task_id: str, context: TaskContext) -> None:
    """Poll the voice, then order the song."""
    result = await acalls.poll(context.state.session, task_id)
    if result is None:
        await _later(AGAIN_S, poll_voice, job, task_id)
    else:
        await song.kiq(job, result["persona_id"])


@broker.task(task_name="song")
async def song(job: Job, persona_id: str, context: TaskContext) -> None:
    """Order a song."""
    await _later(FIRST_S, poll_song, job, await acalls.order_song(context.state.session, job, persona_id))


@broker.task(task_name="poll_song")
async def poll_song(job: Job, task_id: str, context: TaskContext) -> None:
    """Poll the song, then store it."""
    result = await acalls.poll(context.state.session, task_id)
    if result is None:
        await _later(AGAIN_S, poll_song, job, task_id)
    else:
        await context.state.redis.hset(*result_of(job, result))


async def _later(seconds: float, task: Any, *args: Any) -> None:
    if seconds:
        await task.schedule_by_time(source, datetime.now(UTC) + timedelta(seconds=seconds), *args)
    else:
        await task.kiq(*args)


first = voice if STEPS else run


async def many(jobs: Iterator[Job]) -> None:
    """Send some at a time: taskiq has no bulk call."""
    await in_slices(first.kiq, jobs)


async def main() -> None:
    """Run the producer."""
    await broker.startup()
    await serve_async(first.kiq, many)


if __name__ == "__main__":
    asyncio.run(main())
