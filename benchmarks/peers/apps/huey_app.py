"""huey: a task per step; a poll without a result raises `RetryTask`; its scheduler runs every second."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import calls
from huey import RedisHuey
from huey.exceptions import RetryTask
from redis import Redis
from work import AGAIN_S, FIRST_S, REDIS_URL, Job, result_of, serve

huey = RedisHuey("race", url=REDIS_URL, results=False)
redis = Redis.from_url(REDIS_URL)


@huey.task()
def voice(job: Job) -> None:
    """Order a voice."""
    _send(poll_voice, job, calls.order_voice(job))


@huey.task()
def poll_voice(job: Job, task_id: str) -> None:
    """Poll the voice, then order the song."""
    result = calls.poll(task_id)
    if result is None:
        raise RetryTask(delay=AGAIN_S)
    song(job, result["persona_id"])


@huey.task()
def song(job: Job, persona_id: str) -> None:
    """Order a song."""
    _send(poll_song, job, calls.order_song(job, persona_id))


@huey.task()
def poll_song(job: Job, task_id: str) -> None:
    """Poll the song, then store it."""
    result = calls.poll(task_id)
    if result is None:
        raise RetryTask(delay=AGAIN_S)
    redis.hset(*result_of(job, result))


def _send(task: Any, job: Job, task_id: str) -> None:
    if FIRST_S:
        task.schedule(args=(job, task_id), delay=FIRST_S)
    else:
        task(job, task_id)


def many(jobs: Iterator[Job]) -> None:
    """Enqueue all of them: huey has no call for many."""
    for job in jobs:
        voice(job)


if __name__ == "__main__":
    import huey_app  # task names contain the module name, which must not be `__main__` for the workers

    serve(huey_app.voice, huey_app.many)
