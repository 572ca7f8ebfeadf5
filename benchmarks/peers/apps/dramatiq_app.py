"""dramatiq: an actor per step; a poll without a result raises `Retry` with a delay."""

from __future__ import annotations

from collections.abc import Iterator

import calls
import dramatiq
from dramatiq.brokers.redis import RedisBroker
from redis import Redis
from work import AGAIN_S, FIRST_S, REDIS_URL, Job, result_of, serve

dramatiq.set_broker(RedisBroker(url=REDIS_URL))
redis = Redis.from_url(REDIS_URL)

#: dramatiq's delays are in milliseconds.
FIRST, AGAIN = int(FIRST_S * 1000) or None, int(AGAIN_S * 1000)


@dramatiq.actor
def voice(job: Job) -> None:
    """Order a voice."""
    poll_voice.send_with_options(args=(job, calls.order_voice(job)), delay=FIRST)


@dramatiq.actor(max_retries=1000)
def poll_voice(job: Job, task_id: str) -> None:
    """Poll the voice, then order the song."""
    result = calls.poll(task_id)
    if result is None:
        raise dramatiq.errors.Retry("not ready", delay=AGAIN)
    song.send(job, result["persona_id"])


@dramatiq.actor
def song(job: Job, persona_id: str) -> None:
    """Order a song."""
    poll_song.send_with_options(args=(job, calls.order_song(job, persona_id)), delay=FIRST)


@dramatiq.actor(max_retries=1000)
def poll_song(job: Job, task_id: str) -> None:
    """Poll the song, then store it."""
    result = calls.poll(task_id)
    if result is None:
        raise dramatiq.errors.Retry("not ready", delay=AGAIN)
    redis.hset(*result_of(job, result))


def many(jobs: Iterator[Job]) -> None:
    """Send all of them: dramatiq has no call for many (its `group` sends one by one too)."""
    for job in jobs:
        voice.send(job)


if __name__ == "__main__":
    serve(voice.send, many)
