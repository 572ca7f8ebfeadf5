"""The shared parts of all apps: settings, jobs, and the loop that runs enqueue commands.

It runs in the environments of the queues, so it uses the standard library only.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

Job = dict[str, Any]

REDIS_URL = os.environ["RACE_REDIS"]
UPSTREAM = os.environ["RACE_UPSTREAM"]

#: Seconds from an order to its first poll, and from a poll to the next; 0: at once.
FIRST_S = float(os.environ["RACE_FIRST_S"])
AGAIN_S = float(os.environ["RACE_AGAIN_S"])

#: Concurrent coroutines in one process of an asyncio worker.
CONCURRENCY = int(os.environ["RACE_COROUTINES"])

#: Whether the asyncio queues run a task per step; otherwise one coroutine runs a whole job.
STEPS = os.environ.get("RACE_STEPS") == "1"

#: The body that orders a song, without the voice.
SONG: dict[str, Any] = json.loads(os.environ["RACE_SONG"])


def jobs(count: int, batch: str) -> Iterator[Job]:
    """Yield the same jobs as voicequeue gets: different recordings, with a song each."""
    song = {name: value for name, value in SONG.items() if name != "task_type"}
    for number in range(count):
        url = f"https://recordings.example/{batch}/{number:07}.wav"
        yield {"key": f"{batch}-{number}", "batch": batch, "audio_url": url, "song": song}


def voice_body(job: Job) -> dict[str, Any]:
    """Return the body that orders a voice."""
    return {"audio_url": job["audio_url"]}


def song_body(job: Job, persona_id: str) -> dict[str, Any]:
    """Return the body that orders a song."""
    return {"task_type": "persona_music", "persona_id": persona_id, **job["song"]}


def result_in(answer: dict[str, Any]) -> Any:
    """Return the result in the answer to a poll; None while it is not ready."""
    return None if answer.get("type") == "not_ready" else answer["data"]


def result_of(job: Job, clips: Any) -> tuple[str, str, str]:
    """Return the hash, field and value that store a job's result in Redis."""
    return f"race:{job['batch']}", job["key"], json.dumps(clips)


def serve(one: Callable[[Job], object], many: Callable[[Iterator[Job]], object]) -> None:
    """Run the commands on standard input, one JSON object per line; answer with the seconds taken."""
    for line in sys.stdin:
        order = json.loads(line)
        started = time.perf_counter()
        if order["how"] == "many":
            many(jobs(order["count"], order["batch"]))
        else:
            for number, job in enumerate(jobs(order["count"], order["batch"])):
                time.sleep(
                    max(0.0, started + number * order["apart_s"] - time.perf_counter()) if order["apart_s"] else 0
                )
                one(job)
        _answer(started)


async def serve_async(one: Callable[[Job], Awaitable[object]], many: Callable[[Iterator[Job]], Awaitable[object]]):
    """Run the commands for queues that enqueue from a coroutine."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        started = time.perf_counter()
        if order["how"] == "many":
            await many(jobs(order["count"], order["batch"]))
        else:
            for number, job in enumerate(jobs(order["count"], order["batch"])):
                if order["apart_s"]:
                    await asyncio.sleep(max(0.0, started + number * order["apart_s"] - time.perf_counter()))
                await one(job)
        _answer(started)


async def in_slices(enqueue: Callable[[Job], Awaitable[object]], all_jobs: Iterator[Job], size: int = 100) -> None:
    """Enqueue `size` jobs at a time with gather, for queues without a bulk call."""
    waiting = []
    for job in all_jobs:
        waiting.append(enqueue(job))
        if len(waiting) == size:
            await asyncio.gather(*waiting)
            waiting = []
    await asyncio.gather(*waiting)


def _answer(started: float) -> None:
    print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)
