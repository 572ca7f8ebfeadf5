"""Results of a task at upstream, as a poll reads them."""

from __future__ import annotations

from dataclasses import dataclass

from voicequeue.domain.clip import Clip


@dataclass(frozen=True, slots=True)
class NotReady:
    """The task is in progress; `clips` are the songs that upstream has named so far."""

    clips: tuple[Clip, ...] = ()


@dataclass(frozen=True, slots=True)
class VoiceReady:
    """The voice is created."""

    persona_id: str
    name: str | None


@dataclass(frozen=True, slots=True)
class MusicReady:
    """Every song has ended, at least one succeeded, and each that succeeded has its link."""

    clips: tuple[Clip, ...]


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """The task failed; `message` is upstream's text."""

    message: str


TaskResult = NotReady | VoiceReady | MusicReady | TaskFailed
