"""Factories for jobs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from voicequeue import EnqueueItemResult, InvalidJobError, Song, VoiceJob, VoiceQueue
from voicequeue.client.enqueueing import JobInput
from voicequeue.domain.spec import parse_spec

URL = "https://recordings.example/ana.wav"
LYRICS = "[Verse]\nla la la"
SONG = Song(prompt=LYRICS, title="A song")


def voice(**fields: Any) -> VoiceJob:
    """Return a job for a voice without a song: one stage, 4 credits."""
    return VoiceJob(**{"audio_url": URL, **fields})


def voice_with_song(**fields: Any) -> VoiceJob:
    """Return a job for a voice and a song: both stages, 19 credits."""
    return voice(**{"song": SONG, **fields})


def numbered_voices(count: int, **fields: Any) -> list[VoiceJob]:
    """Return `count` different voice jobs, each with a key."""
    return [voice(audio_url=f"https://recordings.example/{n}.wav", key=f"key-{n}", **fields) for n in range(count)]


def results_of(queue: VoiceQueue, jobs: Iterable[JobInput]) -> list[EnqueueItemResult]:
    """Enqueue jobs and return the result of each."""
    results: list[EnqueueItemResult] = []
    queue.enqueue_many(jobs, on_result=results.append)
    return results


def problems(**fields: Any) -> dict[str, str]:
    """Return the validation errors of a job with these fields, by field."""
    with pytest.raises(InvalidJobError) as raised:
        parse_spec({"audio_url": URL, **fields})
    return {problem.field: problem.message for problem in raised.value.problems}
