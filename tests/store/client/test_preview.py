"""What enqueueing would come to, told without doing it."""

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


def told(queue: VoiceQueue, *jobs: VoiceJob) -> list[str | int]:
    """What each would cost; `known`, or what kind of error."""
    return [
        type(each.error).__name__ if each.error else each.credits if each.is_new else "known"
        for each in queue.preview(jobs)
    ]


def test_new_known_and_wrong_jobs_are_told_apart(queue: VoiceQueue, redis: Redis, prefix: str) -> None:
    """In their order, and nothing is changed."""
    queue.enqueue(voice(key="there"))
    before = dump(redis, prefix)

    found = list(
        queue.preview([voice(key="there"), sung(key="new"), {"audio_url": "x"}, voice(key="there", name="Bo")])
    )

    assert found[:2] == [Foreseen(), Foreseen(is_new=True, credits=19)]
    assert [type(each.error) for each in found[2:]] == [InvalidJob, KeyConflict]
    assert dump(redis, prefix) == before


def test_what_comes_earlier_counts_for_what_comes_later(queue: VoiceQueue) -> None:
    """The same job twice is one, and one key cannot stand for two, however far apart they are."""
    many = numbered(CHUNK)

    assert told(queue, many[3], *many, voice(key="key-3")) == [4, 4, 4, 4, "known", *[4] * (CHUNK - 4), "KeyConflict"]


@pytest.mark.parametrize(
    "shared",
    [{"reuse": True}, {"voice": "ana"}, {"reuse": True, "audio_sha256": "0a" * 32}],
    ids=["by URL", "by name", "by content"],
)
def test_a_shared_voice_is_paid_once(queue: VoiceQueue, store: Store, shared: dict[str, object]) -> None:
    """By the first job of those that are new, or by one that is there; its songs are paid as they come."""
    jobs = [sung(key=f"k{n}", batch="b", **shared) for n in range(3)]
    assert told(queue, *jobs) == [19, 15, 15]

    store.enqueue([(jobs[0].id(), jobs[0])], 1.0)

    assert told(queue, *jobs, voice(key="alone", batch="b", **shared)) == ["known", 15, 15, 0]


def test_a_voice_made_from_the_same_url_serves_by_its_content_too(queue: VoiceQueue, redis: Redis, prefix: str) -> None:
    """As scripts/lib/shared_voices.lua has it."""
    redis.hset(f"{{{prefix}}}:voice:{voice().recording()}", "persona_id", "p-1")

    assert told(queue, sung(reuse=True, audio_sha256="0b" * 32), sung(audio_url=B, reuse=True)) == [15, 19]


def test_a_name_stands_for_one_recording(queue: VoiceQueue) -> None:
    """In one batch."""
    jobs = [voice(voice="ana", batch=batch, audio_url=url) for batch, url in [("a", URL), ("a", B), ("b", B)]]

    assert told(queue, *jobs) == [4, "InvalidJob", 4]


def test_several_songs_cost_one_voice(queue: VoiceQueue, store: Store) -> None:
    """And one answer, as they are one job to the caller."""
    job = VoiceJob(audio_url=URL, songs=(SONG, SONG, SONG), key="k")
    assert told(queue, job) == [4 + 3 * 15]

    store.enqueue([(each.id(), each) for each in job.each()[:2]], 1.0)

    assert told(queue, job) == [15]


def test_the_twin_for_event_loops_tells_the_same(queue: VoiceQueue, valkey_url: str, prefix: str) -> None:
    """Job by job."""
    jobs = [*numbered(CHUNK + 1), numbered(1)[0]]

    async def ask() -> list[Foreseen]:
        async with AsyncVoiceQueue(valkey_url, prefix=prefix) as twin:
            return [each async for each in twin.preview(jobs)]

    assert asyncio.run(ask()) == list(queue.preview(jobs))
