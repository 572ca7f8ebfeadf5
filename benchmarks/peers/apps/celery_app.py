"""Celery in its usual style: a task per step, polls are retries with a countdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import calls
from celery import Celery
from redis import Redis
from work import AGAIN_S, FIRST_S, REDIS_URL, Job, result_of, serve

app = Celery("celery_app", broker=REDIS_URL)
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=64,  # for many short tasks, as its guide to optimizing says
    broker_connection_retry_on_startup=True,
)
redis = Redis.from_url(REDIS_URL)


@app.task
def voice(job: Job) -> None:
    """Order a voice."""
    poll_voice.apply_async((job, calls.order_voice(job)), countdown=FIRST_S or None)


@app.task(bind=True, max_retries=None)
def poll_voice(self: Any, job: Job, task_id: str) -> None:
    """Poll the voice, then order the song."""
    result = calls.poll(task_id)
    if result is None:
        raise self.retry(countdown=AGAIN_S)
    song.delay(job, result["persona_id"])


@app.task
def song(job: Job, persona_id: str) -> None:
    """Order a song."""
    poll_song.apply_async((job, calls.order_song(job, persona_id)), countdown=FIRST_S or None)


@app.task(bind=True, max_retries=None)
def poll_song(self: Any, job: Job, task_id: str) -> None:
    """Poll the song, then store it."""
    result = calls.poll(task_id)
    if result is None:
        raise self.retry(countdown=AGAIN_S)
    redis.hset(*result_of(job, result))


def many(jobs: Iterator[Job]) -> None:
    """Send all of them with one producer: Celery has no call for many."""
    with app.producer_pool.acquire(block=True) as producer:
        for job in jobs:
            voice.apply_async((job,), producer=producer)


if __name__ == "__main__":
    serve(voice.delay, many)
