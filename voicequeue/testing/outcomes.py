"""Scripted outcomes of the jobs of a test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TypeVar

from voicequeue.domain.clip import Clip
from voicequeue.domain.job import Job
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import FailureCode

E = TypeVar("E", bound=StrEnum)


class Ending(Enum):
    """The ways in which the fake worker ends a stage."""

    SUCCEEDS = "succeeds"
    FAILS = "fails"
    UNSURE = "unsure"
    STAYS_PENDING = "stays pending"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A scripted outcome: made by `succeeds`, `fails`, `moderated`, `unsure` or `stays_pending`.

    Attributes:
        ending: The way in which the job ends.
        stage: Stage that ends so, after those before it have succeeded; None is the first one that is still to be
            paid.
        code: Reason of a failure.
        message: Details of a failure or of an unsure charge.
        persona_id: Id of the voice that is created; None makes one up.
        clips: Songs that are created; None makes up two, as MusicAPI creates them.
    """

    ending: Ending
    stage: Stage | None = None
    code: FailureCode | None = None
    message: str = ""
    persona_id: str | None = None
    clips: tuple[Clip, ...] | None = None


def succeeds(*, persona_id: str | None = None, clips: Sequence[Clip] | None = None) -> Outcome:
    """Return the outcome of a job that succeeds, which is that of a job without a script.

    Args:
        persona_id: Id of the voice that it creates. None makes one up.
        clips: Songs that it creates. None makes up two.

    Raises:
        ValueError: One of the clips is not a `Clip`.
    """
    if not all(isinstance(clip, Clip) for clip in clips or ()):
        raise ValueError("clips: each must be a voicequeue.Clip, such as Clip('clip-1', 'succeeded')")
    return Outcome(Ending.SUCCEEDS, persona_id=persona_id, clips=None if clips is None else tuple(clips))


def fails(code: FailureCode | str, message: str = "", *, stage: Stage | str | None = None) -> Outcome:
    """Return the outcome of a job that fails.

    As with MusicAPI, `upstream_failed` and `deadline` cost the credits of the stage, the other codes nothing.

    Args:
        code: Reason, such as `refused` or `upstream_failed`. `abandoned` is not one: a person abandons an unsure job,
            with `VoiceQueue.abandon`.
        message: Details, as MusicAPI would give them.
        stage: Stage that fails, `voice` or `music`. None is the first one that the job has to pay.

    Raises:
        ValueError: The code or the stage is unknown, or the code is `abandoned`.
    """
    code = _choice("code", FailureCode, code)
    if code is FailureCode.ABANDONED:
        raise ValueError("code: 'abandoned' is a decision of a person: use unsure(), then queue.abandon(job_id)")
    return Outcome(Ending.FAILS, _stage(stage), code, message or f"scripted: {code}")


def moderated(message: str = "", *, stage: Stage | str | None = None) -> Outcome:
    """Return the outcome of a job whose text MusicAPI does not allow: `fails("moderated")`.

    Args:
        message: Details, as MusicAPI would give them.
        stage: Stage that fails. None is the first one that the job has to pay.
    """
    return fails(FailureCode.MODERATED, message, stage=stage)


def unsure(message: str = "", *, stage: Stage | str | None = None) -> Outcome:
    """Return the outcome of a job that becomes `unsure`: the answer to its order is lost.

    Args:
        message: Reason on the timeline.
        stage: Stage that becomes unsure. None is the first one that the job has to pay.
    """
    return Outcome(Ending.UNSURE, _stage(stage), message=message or "scripted: the answer was lost")


def stays_pending(*, stage: Stage | str | None = None) -> Outcome:
    """Return the outcome of a job that MusicAPI accepts and never finishes.

    Args:
        stage: Stage that stays pending. None is the first one that the job has to pay.
    """
    return Outcome(Ending.STAYS_PENDING, _stage(stage))


def _stage(stage: Stage | str | None) -> Stage | None:
    return None if stage is None else _choice("stage", Stage, stage)


def _choice(name: str, choices: type[E], value: str) -> E:
    if value not in list(choices):
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(choices)}")
    return choices(value)


@dataclass(frozen=True, slots=True)
class _Script:
    matches: Callable[[Job], bool]
    outcomes: tuple[Outcome, ...]


class Scripts:
    """The scripted outcomes of one queue; the latest script that matches a job applies to it."""

    def __init__(self) -> None:
        self._scripts: list[_Script] = []
        #: How many outcomes of its script each job has had.
        self._used = Counter[str]()

    def add(self, matches: Callable[[Job], bool], outcomes: Sequence[Outcome]) -> None:
        """Give the jobs that match these outcomes, one after the other; the last one stays."""
        self._scripts.append(_Script(matches, tuple(outcomes)))

    def outcome_of(self, job: Job) -> Outcome:
        """Return the next outcome of a job."""
        outcomes = next((script.outcomes for script in reversed(self._scripts) if script.matches(job)), (succeeds(),))
        return outcomes[min(self._used[job.id], len(outcomes) - 1)]

    def use(self, job_id: str) -> None:
        """Go on to the next outcome of a job."""
        self._used[job_id] += 1
