"""`python -m benchmarks.peers.ours`: enqueues on voicequeue as it is told, and does what is the floor for all.

`calls` are the HTTP calls of a job alone, by voicequeue's client; `bytes` the same bytes of jobs sent to Redis
with nothing but redis-py's pipeline.
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

#: Jobs in one pipeline.
SLICE = 500


def main() -> None:
    """Do what standard input says, one JSON object a line; answer with seconds, and CPU seconds."""
    url = os.environ["RACE_REDIS"]
    with VoiceQueue(url) as queue:
        for line in sys.stdin:
            told = json.loads(line)
            began, cpu = time.perf_counter(), time.process_time()
            _do(queue, url, told)
            seconds, spent = time.perf_counter() - began, time.process_time() - cpu
            print(json.dumps({"seconds": seconds, "cpu": spent}), flush=True)


def _do(queue: VoiceQueue, url: str, told: dict[str, Any]) -> None:
    how, count, batch = told["how"], told["count"], told["batch"]
    if how == "many":
        queue.enqueue_many(jobs(count, batch))
    elif how == "one":
        _one_by_one(queue, count, batch, told["apart_s"])
    elif how == "calls":
        _calls(count, batch)
    elif how == "bytes":
        _bytes(url, count, batch)
    else:
        raise ValueError(how)


def _one_by_one(queue: VoiceQueue, count: int, batch: str, apart_s: float) -> None:
    began = time.perf_counter()
    for number, job in enumerate(jobs(count, batch)):
        if apart_s:
            time.sleep(max(0.0, began + number * apart_s - time.perf_counter()))
        queue.enqueue(job)


def _calls(count: int, batch: str) -> None:
    """As many at once as a worker makes, chunk by chunk, and nothing else."""
    chosen = Settings()
    upstream = MusicApi(os.environ["RACE_UPSTREAM"], "any", connections=chosen.http_threads)
    urls = [str(job.audio_url) for job in jobs(count, batch)]
    for start in range(0, count, chosen.chunk):
        orders = _all(upstream, [requests.create_voice(url) for url in urls[start : start + chosen.chunk]])
        voices = [_voice(reading) for reading in _all(upstream, [requests.get_task(order) for order in orders])]
        orders = _all(upstream, [requests.create_music(persona_id, SONG) for persona_id in voices])
        _all(upstream, [requests.get_task(order) for order in orders])
    upstream.close()


def _all(upstream: MusicApi, made: list[ApiRequest[T]]) -> list[T]:
    """What the answers to all of them say, in their order."""
    pool = RequestPool[int, T](upstream)
    pool.send(list(enumerate(made)))
    found: dict[int, T] = {}
    while pool.is_open:
        for told in pool.collect():
            if isinstance(told.result, UpstreamError):
                raise told.result
            found[told.key] = told.result
    return [found[place] for place in range(len(made))]


def _voice(reading: TaskResult) -> str:
    if not isinstance(reading, VoiceReady):
        raise RuntimeError(f"upstream is to be ready at once, not {reading}")
    return reading.persona_id


def _bytes(url: str, count: int, batch: str) -> None:
    client = connect(url)
    many = list(jobs(count, batch))
    for start in range(0, count, SLICE):
        with client.pipeline(transaction=False) as pipe:
            for number, job in enumerate(many[start : start + SLICE], start=start):
                pipe.set(f"raw:{batch}:{number}", job.content())
            pipe.execute()


if __name__ == "__main__":
    main()
