"""Previews of enqueueing, which write nothing."""

from __future__ import annotations

import asyncio

import pytest
from redis import Redis

from tests.store.life import dump_keys
from tests.support.jobs import SONG, URL, numbered_voices, voice, voice_with_song
from voicequeue import AsyncVoiceQueue, EnqueuePreview, InvalidJobError, KeyConflictError, VoiceJob, VoiceQueue
from voicequeue.domain.portions import PORTION_JOBS_MAX
from voicequeue.storage.job_store import JobStore

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
    before = dump_keys(redis, prefix)

    results = list(
        queue.preview(
            [voice(key="there"), voice_with_song(key="new"), {"audio_url": "x"}, voice(key="there", name="Bo")]
        )
    )

    assert results[:2] == [EnqueuePreview(), EnqueuePreview(is_new=True, credits=19)]
    assert [type(result.error) for result in results[2:]] == [InvalidJobError, KeyConflictError]
    assert dump_keys(redis, prefix) == before


def test_earlier_jobs_count_for_later_ones(queue: VoiceQueue) -> None:
    """A repeated job is one, and one key cannot denote two, at any distance."""
    many = numbered_voices(PORTION_JOBS_MAX)

    assert described(queue, many[3], *many, voice(key="key-3")) == [
        4,
        4,
        4,
        4,
        "known",
        *[4] * (PORTION_JOBS_MAX - 4),
        "KeyConflictError",
    ]


@pytest.mark.parametrize(
    "shared",
    [{"reuse": True}, {"voice": "ana"}, {"reuse": True, "audio_sha256": "0a" * 32}],
    ids=["by URL", "by name", "by content"],
)
def test_a_shared_voice_is_paid_once(queue: VoiceQueue, store: JobStore, shared: dict[str, object]) -> None:
    """Its first new job pays, or an existing one has paid; songs are paid each."""
    jobs = [voice_with_song(key=f"k{n}", batch="b", **shared) for n in range(3)]
    assert described(queue, *jobs) == [19, 15, 15]

    store.enqueue([(store.job_ids.of(jobs[0]), jobs[0])], 1.0)

    assert described(queue, *jobs, voice(key="alone", batch="b", **shared)) == ["known", 15, 15, 0]


def test_a_voice_by_url_is_used_by_content_too(queue: VoiceQueue, redis: Redis, prefix: str) -> None:
    """The same as in scripts/lib/shared_voices.lua."""
    redis.hset(f"{{{prefix}}}:voice:{voice().recording_voice()}", "persona_id", "p-1")

    assert described(
        queue, voice_with_song(reuse=True, audio_sha256="0b" * 32), voice_with_song(audio_url=B, reuse=True)
    ) == [15, 19]


def test_a_name_denotes_one_recording(queue: VoiceQueue) -> None:
    """This holds within one batch."""
    jobs = [voice(voice="ana", batch=batch, audio_url=url) for batch, url in [("a", URL), ("a", B), ("b", B)]]

    assert described(queue, *jobs) == [4, "InvalidJobError", 4]


def test_several_songs_cost_one_voice(queue: VoiceQueue, store: JobStore) -> None:
    """They give one result, because they are one request."""
    job = VoiceJob(audio_url=URL, songs=(SONG, SONG, SONG), key="k")
    assert described(queue, job) == [4 + 3 * 15]

    store.enqueue([(store.job_ids.of(spec), spec) for spec in job.expand()[:2]], 1.0)

    assert described(queue, job) == [15]


def test_the_async_queue_returns_the_same(queue: VoiceQueue, valkey_url: str, prefix: str) -> None:
    """The results are equal job by job."""
    jobs = [*numbered_voices(PORTION_JOBS_MAX + 1), numbered_voices(1)[0]]

    async def ask() -> list[EnqueuePreview]:
        async with AsyncVoiceQueue(valkey_url, prefix=prefix) as twin:
            return [result async for result in twin.preview(jobs)]

    assert asyncio.run(ask()) == list(queue.preview(jobs))
