"""`python -m benchmarks.peers.ours`: enqueue on voicequeue on command, and measure the floor for all queues.

`calls` makes only the HTTP requests of a job, with voicequeue's client; `bytes` sends only the bytes of jobs to Redis,
with redis-py's pipeline.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, TypeVar

from benchmarks.load import SONG, jobs
from config.settings import Settings
from tasks.musicapi import MusicApi, RequestPool, TaskResult, UpstreamError, VoiceReady, requests
from tasks.musicapi.requests import ApiRequest
from voicequeue import VoiceQueue
from voicequeue.storage.connection.client import connect

T = TypeVar("T")

#: Jobs per pipeline.
SLICE = 500


def main() -> None:
    """Run the commands on standard input, one JSON object per line; answer with seconds and CPU seconds."""
    url = os.environ["RACE_REDIS"]
    with VoiceQueue(url, namespace="*") as queue:
        for line in sys.stdin:
            order = json.loads(line)
            started, cpu = time.perf_counter(), time.process_time()
            _do(queue, url, order)
            seconds, spent = time.perf_counter() - started, time.process_time() - cpu
            print(json.dumps({"seconds": seconds, "cpu": spent}), flush=True)


def _do(queue: VoiceQueue, url: str, order: dict[str, Any]) -> None:
    how, count, batch = order["how"], order["count"], order["batch"]
    if how == "many":
        queue.enqueue_many(jobs(count, batch))
    elif how == "one":
        _one_by_one(queue, count, batch, order["apart_s"])
    elif how == "calls":
        _calls(count, batch)
    elif how == "bytes":
        _bytes(url, count, batch)
    else:
        raise ValueError(how)


def _one_by_one(queue: VoiceQueue, count: int, batch: str, apart_s: float) -> None:
    started = time.perf_counter()
    for number, job in enumerate(jobs(count, batch)):
        if apart_s:
            time.sleep(max(0.0, started + number * apart_s - time.perf_counter()))
        queue.enqueue(job)


def _calls(count: int, batch: str) -> None:
    """Make the requests of jobs with the concurrency of a worker, chunk by chunk."""
    settings = Settings()
    upstream = MusicApi(os.environ["RACE_UPSTREAM"], "any", connections=settings.upstream_concurrency)
    urls = [str(job.audio_url) for job in jobs(count, batch)]
    for start in range(0, count, settings.task_chunk_size):
        orders = _all(upstream, [requests.create_voice(url) for url in urls[start : start + settings.task_chunk_size]])
        voices = [_voice(reading) for reading in _all(upstream, [requests.get_task(order) for order in orders])]
        orders = _all(upstream, [requests.create_music(persona_id, SONG) for persona_id in voices])
        _all(upstream, [requests.get_task(order) for order in orders])
    upstream.close()


def _all(upstream: MusicApi, requests_: list[ApiRequest[T]]) -> list[T]:
    """Make all requests, and return their results in order."""
    pool = RequestPool[int, T](upstream)
    pool.send(list(enumerate(requests_)))
    results: dict[int, T] = {}
    while pool.is_open:
        for completed in pool.collect():
            if isinstance(completed.result, UpstreamError):
                raise completed.result
            results[completed.key] = completed.result
    return [results[place] for place in range(len(requests_))]


def _voice(reading: TaskResult) -> str:
    if not isinstance(reading, VoiceReady):
        raise RuntimeError(f"upstream must be ready at once, not {reading}")
    return reading.persona_id


def _bytes(url: str, count: int, batch: str) -> None:
    client = connect(url)
    all_jobs = list(jobs(count, batch))
    for start in range(0, count, SLICE):
        with client.pipeline(transaction=False) as pipe:
            for number, job in enumerate(all_jobs[start : start + SLICE], start=start):
                pipe.set(f"raw:{batch}:{number}", job.canonical_content())
            pipe.execute()


if __name__ == "__main__":
    main()
