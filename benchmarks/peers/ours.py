"""`python -m benchmarks.peers.ours`: enqueues on voicequeue as it is told, and does what is the floor for all.

`calls` are the HTTP calls of a job alone, by voicequeue's client; `bytes` the same bytes of jobs sent to Redis
with nothing but redis-py's pipeline.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from benchmarks.load import SONG, jobs
from tasks.musicapi import MusicApi, VoiceReady
from voicequeue import VoiceQueue
from voicequeue.store import connect

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
    upstream = MusicApi(os.environ["RACE_UPSTREAM"], "any")
    for job in jobs(count, batch):
        voice = upstream.task(upstream.create_voice(str(job.audio_url)))
        if not isinstance(voice, VoiceReady):
            raise RuntimeError(f"upstream is to be ready at once, not {voice}")
        upstream.task(upstream.create_music(voice.persona_id, SONG))
    upstream.close()


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
