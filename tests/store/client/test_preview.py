"""Previews of enqueueing, which write nothing."""

from __future__ import annotations

import asyncio

import pytest
from redis import Redis

from tests.store.life import dump
from tests.support.jobs import SONG, URL, numbered, sung, voice
from voicequeue import AsyncVoiceQueue, Foreseen, InvalidJob, KeyConflict, VoiceJob, VoiceQueue
from voicequeue.domain.portions import CHUNK
from voicequeue.storage.job_store import Store

B = "https://recordings.example/bo.wav"


def described(queue: VoiceQueue, *jobs: VoiceJob) -> list[str | int]:
    """Return the cost of each job; `known`, or the kind of error."""
    return [
        type(result.error).__name__ if result.error else result.credits if result.is_new else "known"
        for result in queue.preview(jobs)
    ]


def test_new_known_and_invalid_jobs_are_distinguished(queue: VoiceQueue, redis: Redis, prefix: str) -> None:
    """Results are in order, and nothing changes."""
    queue.enqueue(voice(key="there"))
    before = dump(redis, prefix)

    results = list(
        queue.preview([voice(key="there"), sung(key="new"), {"audio_url": "x"}, voice(key="there", name="Bo")])
    )

    assert results[:2] == [Foreseen(), Foreseen(is_new=True, credits=19)]
    assert [type(result.error) for result in results[2:]] == [InvalidJob, KeyConflict]
    assert dump(redis, prefix) == before


def test_earlier_jobs_count_for_later_ones(queue: VoiceQueue) -> None:
    """A repeated job is one, and one key cannot denote two, at any distance."""
    many = numbered(CHUNK)

    assert described(queue, many[3], *many, voice(key="key-3")) == [
        4,
        4,
        4,
        4,
        "known",
        *[4] * (CHUNK - 4),
        "KeyConflict",
    ]


@pytest.mark.parametrize(
    "shared",
    [{"reuse": True}, {"voice": "ana"}, {"reuse": True, "audio_sha256": "0a" * 32}],
    ids=["by URL", "by name", "by content"],
)
def test_a_shared_voice_is_paid_once(queue: VoiceQueue, store: Store, shared: dict[str, object]) -> None:
    """Its first new job pays, or an existing one has paid; songs are paid each."""
    jobs = [sung(key=f"k{n}", batch="b", **shared) for n in range(3)]
    assert described(queue, *jobs) == [19, 15, 15]

    store.enqueue([(jobs[0].id(), jobs[0])], 1.0)

    assert described(queue, *jobs, voice(key="alone", batch="b", **shared)) == ["known", 15, 15, 0]


def test_a_voice_by_url_is_used_by_content_too(queue: VoiceQueue, redis: Redis, prefix: str) -> None:
    """The same as in scripts/lib/shared_voices.lua."""
    redis.hset(f"{{{prefix}}}:voice:{voice().recording()}", "persona_id", "p-1")

    assert described(queue, sung(reuse=True, audio_sha256="0b" * 32), sung(audio_url=B, reuse=True)) == [15, 19]


def test_a_name_denotes_one_recording(queue: VoiceQueue) -> None:
    """This holds within one batch."""
    jobs = [voice(voice="ana", batch=batch, audio_url=url) for batch, url in [("a", URL), ("a", B), ("b", B)]]

    assert described(queue, *jobs) == [4, "InvalidJob", 4]


def test_several_songs_cost_one_voice(queue: VoiceQueue, store: Store) -> None:
    """They give one result, because they are one request."""
    job = VoiceJob(audio_url=URL, songs=(SONG, SONG, SONG), key="k")
    assert described(queue, job) == [4 + 3 * 15]

    store.enqueue([(spec.id(), spec) for spec in job.each()[:2]], 1.0)

    assert described(queue, job) == [15]


def test_the_async_queue_returns_the_same(queue: VoiceQueue, valkey_url: str, prefix: str) -> None:
    """The results are equal job by job."""
    jobs = [*numbered(CHUNK + 1), numbered(1)[0]]

    async def ask() -> list[Foreseen]:
        async with AsyncVoiceQueue(valkey_url, prefix=prefix) as twin:
            return [result async for result in twin.preview(jobs)]

    assert asyncio.run(ask()) == list(queue.preview(jobs))
