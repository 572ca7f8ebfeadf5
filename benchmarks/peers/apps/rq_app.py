"""rq: a job per step; polls are repeated by `enqueue_in`, whose scheduler runs every second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice
from typing import Any

import calls
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from work import AGAIN_S, FIRST_S, REDIS_URL, Job, result_of, serve

redis = Redis.from_url(REDIS_URL)
queue = Queue(connection=redis, serializer=JSONSerializer)

#: Jobs per call of `enqueue_many`.
SLICE = 500


def voice(job: Job) -> None:
    """Order a voice."""
    _later(FIRST_S, poll_voice, job, calls.order_voice(job))


def poll_voice(job: Job, task_id: str) -> None:
    """Poll the voice, then order the song."""
    result = calls.poll(task_id)
    if result is None:
        _later(AGAIN_S, poll_voice, job, task_id)
    else:
        _later(0, song, job, result["persona_id"])


def song(job: Job, persona_id: str) -> None:
    """Order a song."""
    _later(FIRST_S, poll_song, job, calls.order_song(job, persona_id))


def poll_song(job: Job, task_id: str) -> None:
    """Poll the song, then store it."""
    result = calls.poll(task_id)
    if result is None:
        _later(AGAIN_S, poll_song, job, task_id)
    else:
        redis.hset(*result_of(job, result))


def _later(seconds: float, function: Callable[..., None], *args: Any) -> None:
    if seconds:
        queue.enqueue_in(timedelta(seconds=seconds), function, *args, result_ttl=0)
    else:
        queue.enqueue(function, *args, result_ttl=0)


def one(job: Job) -> None:
    """Enqueue one, to be forgotten when it is done."""
    queue.enqueue("rq_app.voice", job, result_ttl=0)


def many(jobs: Iterator[Job]) -> None:
    """Enqueue some in each call."""
    while some := [Queue.prepare_data("rq_app.voice", (job,), result_ttl=0) for job in islice(jobs, SLICE)]:
        queue.enqueue_many(some)


if __name__ == "__main__":
    serve(one, many)
