"""What every peer's app shares: its settings, the jobs, and the loop in which it is told to enqueue.

Runs in the peers' environments: nothing but the standard library.
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

#: Seconds from an order to its first poll, and from a poll to the next. None at all: without a detour.
FIRST_S = float(os.environ["RACE_FIRST_S"])
AGAIN_S = float(os.environ["RACE_AGAIN_S"])

#: Coroutines at once in one process of an asyncio worker.
CONCURRENCY = int(os.environ["RACE_COROUTINES"])

#: How the asyncio queues do a job: as a task a step, or the whole of it as one coroutine.
STEPS = os.environ.get("RACE_STEPS") == "1"

#: The body that orders a song, without the voice.
SONG: dict[str, Any] = json.loads(os.environ["RACE_SONG"])


def jobs(count: int, batch: str) -> Iterator[Job]:
    """The same jobs as voicequeue gets: a recording and a song each, all different."""
    song = {name: value for name, value in SONG.items() if name != "task_type"}
    for number in range(count):
        url = f"https://recordings.example/{batch}/{number:07}.wav"
        yield {"key": f"{batch}-{number}", "batch": batch, "audio_url": url, "song": song}


def voice_body(job: Job) -> dict[str, Any]:
    """The body that orders a voice."""
    return {"audio_url": job["audio_url"]}


def song_body(job: Job, persona_id: str) -> dict[str, Any]:
    """The body that orders a song."""
    return {"task_type": "persona_music", "persona_id": persona_id, **job["song"]}


def found_in(answer: dict[str, Any]) -> Any:
    """The result in the answer to a poll; None while it is not ready."""
    return None if answer.get("type") == "not_ready" else answer["data"]


def result_of(job: Job, clips: Any) -> tuple[str, str, str]:
    """Where a job's result goes in Redis: the hash, the field, the value."""
    return f"race:{job['batch']}", job["key"], json.dumps(clips)


def serve(one: Callable[[Job], object], many: Callable[[Iterator[Job]], object]) -> None:
    """Enqueue as told on standard input, one JSON object a line; answer with the seconds it took."""
    for line in sys.stdin:
        told = json.loads(line)
        began = time.perf_counter()
        if told["how"] == "many":
            many(jobs(told["count"], told["batch"]))
        else:
            for number, job in enumerate(jobs(told["count"], told["batch"])):
                time.sleep(max(0.0, began + number * told["apart_s"] - time.perf_counter()) if told["apart_s"] else 0)
                one(job)
        _answer(began)


async def serve_async(one: Callable[[Job], Awaitable[object]], many: Callable[[Iterator[Job]], Awaitable[object]]):
    """The same for those that enqueue from a coroutine."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        told = json.loads(line)
        began = time.perf_counter()
        if told["how"] == "many":
            await many(jobs(told["count"], told["batch"]))
        else:
            for number, job in enumerate(jobs(told["count"], told["batch"])):
                if told["apart_s"]:
                    await asyncio.sleep(max(0.0, began + number * told["apart_s"] - time.perf_counter()))
                await one(job)
        _answer(began)


async def in_slices(enqueue: Callable[[Job], Awaitable[object]], all_jobs: Iterator[Job], size: int = 100) -> None:
    """Enqueue so many at a time with gather, for queues that have no call for many."""
    waiting = []
    for job in all_jobs:
        waiting.append(enqueue(job))
        if len(waiting) == size:
            await asyncio.gather(*waiting)
            waiting = []
    await asyncio.gather(*waiting)


def _answer(began: float) -> None:
    print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)
