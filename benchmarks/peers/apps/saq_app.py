"""saq: one coroutine per job, or a task per step whose poll is repeated by `scheduled`.

Its workers check scheduled jobs once a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import acalls
from saq import Queue
from work import AGAIN_S, CONCURRENCY, FIRST_S, REDIS_URL, STEPS, Job, in_slices, result_of, serve_async

queue = Queue.from_url(REDIS_URL)

#: The options of tasks. A whole job has no time limit; the limit of a step (seconds) lets saq's sweep detect a lost
#: worker and retry the step. Finished jobs are not stored.
FIRST = "voice" if STEPS else "run"
OPTIONS = {"timeout": 60, "retries": 3, "ttl": -1} if STEPS else {"timeout": 0, "ttl": -1}


async def startup(ctx: dict[str, Any]) -> None:
    """Open the session."""
    ctx["session"] = acalls.open_session()


async def run(ctx: dict[str, Any], *, work: Job) -> None:
    """Run a whole job."""
    await queue.redis.hset(*result_of(work, await acalls.sing(ctx["session"], work)))


async def voice(ctx: dict[str, Any], *, work: Job) -> None:
    """Order a voice."""
    await _later(FIRST_S, "poll_voice", work=work, task_id=await acalls.order_voice(ctx["session"], work))


async def poll_voice(ctx: dict[str, Any], *, work: Job, task_id: str) -> None:
    """Poll the voice, then order the song."""
    result = await acalls.poll(ctx["session"], task_id)
    if result is None:
        await _later(AGAIN_S, "poll_voice", work=work, task_id=task_id)
    else:
        await _later(0, "song", work=work, persona_id=result["persona_id"])


async def song(ctx: dict[str, Any], *, work: Job, persona_id: str) -> None:
    """Order a song."""
    await _later(FIRST_S, "poll_song", work=work, task_id=await acalls.order_song(ctx["session"], work, persona_id))


async def poll_song(ctx: dict[str, Any], *, work: Job, task_id: str) -> None:
    """Poll the song, then store it."""
    result = await acalls.poll(ctx["session"], task_id)
    if result is None:
        await _later(AGAIN_S, "poll_song", work=work, task_id=task_id)
    else:
        await queue.redis.hset(*result_of(work, result))


async def _later(seconds: float, name: str, **kwargs: Any) -> None:
    await queue.enqueue(name, scheduled=time.time() + seconds if seconds else 0, **OPTIONS, **kwargs)


settings = {
    "queue": queue,
    "functions": [run, voice, poll_voice, song, poll_song],
    "concurrency": CONCURRENCY,
    "startup": startup,
}


async def one(job: Job) -> None:
    """Enqueue one."""
    await _later(0, FIRST, work=job)


async def many(jobs: Iterator[Job]) -> None:
    """Enqueue some at a time: saq has no call for many."""
    await in_slices(one, jobs)


async def main() -> None:
    """Run the producer."""
    await queue.connect()
    await serve_async(one, many)


if __name__ == "__main__":
    asyncio.run(main())
