"""Jobs as tests need them."""

from __future__ import annotations

from typing import Any

import pytest

from voicequeue import InvalidJob, Song, VoiceJob
from voicequeue.domain.spec import parse

URL = "https://recordings.example/ana.wav"
LYRICS = "[Verse]\nla la la"
SONG = Song(prompt=LYRICS, title="A song")


def voice(**fields: Any) -> VoiceJob:
    """A voice alone: one stage, 4 credits."""
    return VoiceJob(**{"audio_url": URL, **fields})


def sung(**fields: Any) -> VoiceJob:
    """A voice and a song: both stages, 19 credits."""
    return voice(**{"song": SONG, **fields})


def numbered(count: int, **fields: Any) -> list[VoiceJob]:
    """Voices that differ, each with a key."""
    return [voice(audio_url=f"https://recordings.example/{n}.wav", key=f"key-{n}", **fields) for n in range(count)]


def problems(**fields: Any) -> dict[str, str]:
    """What is wrong with a job of these fields, by field."""
    with pytest.raises(InvalidJob) as caught:
        parse({"audio_url": URL, **fields})
    return {problem.field: problem.message for problem in caught.value.problems}
