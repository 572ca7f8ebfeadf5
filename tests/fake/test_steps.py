"""The transitions of scripted jobs are those of the real workers (tasks/decisions.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tasks import decisions
from tasks.musicapi import (
    AmbiguousFailure,
    InvalidRequest,
    Moderated,
    MusicReady,
    TaskFailed,
    UpstreamError,
    VoiceReady,
)
from tests.support.jobs import voice, voice_with_song
from voicequeue import Clip, FailureCode, Job, Stage, State
from voicequeue.domain.claims import PollClaim, StalledJob, SubmitClaim
from voicequeue.domain.job import FailureReport
from voicequeue.testing import fails, moderated, steps, succeeds, unsure
from voicequeue.testing.outcomes import Outcome

NOW = 1_760_000_000.0
CLIPS = (Clip("c-1", "succeeded", "A song", "https://cdn.example/1.mp3"),)


def job_at(stage: Stage, state: State, *, alone: bool = False) -> Job:
    """Return a job in this stage."""
    spec = voice(name="Ana") if alone else voice_with_song(name="Ana")
    return Job("abcdefgh", 3, state, stage, spec, NOW - 60, NOW)


def submit_claim(stage: Stage) -> SubmitClaim:
    """Return the claim of an order."""
    content = voice_with_song().canonical_content()
    return SubmitClaim("abcdefgh", 4, stage, 1, content, None, NOW + 60, "holder")


def poll_claim(stage: Stage, *, next_stage: Stage | None = None, resubmits: bool = False) -> PollClaim:
    """Return the claim of a poll of an order whose failure was reported before."""
    return PollClaim(
        "abcdefgh",
        5,
        State.PENDING,
        stage,
        "task-1",
        submitted_at=NOW,
        last_not_ready_at=None,
        next_stage=next_stage,
        model="",
        clips=(),
        failure_report=FailureReport(NOW - 60, "no"),
        resubmits=resubmits,
    )


@pytest.mark.parametrize("stage", Stage)
def test_an_accepted_order(stage: Stage) -> None:
    """With its task, its credits and its model."""
    job, claim = job_at(stage, State.CHARGING), submit_claim(stage)
    model = "sonic-v5" if stage is Stage.MUSIC else ""

    assert steps.ordered(job, claim, succeeds(), "task-1", NOW) == decisions.accepted(claim, "task-1", NOW, 0.0, model)


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (moderated("no"), Moderated("no")),
        (fails("refused", "no"), InvalidRequest("no")),
        (unsure("lost"), AmbiguousFailure("lost")),
    ],
    ids=["moderated", "refused", "unsure"],
)
def test_an_order_that_was_not_accepted(stage: Stage, outcome: Outcome, error: UpstreamError) -> None:
    """Refused or moderated, or without an answer."""
    claim = submit_claim(stage)

    done = steps.ordered(job_at(stage, State.CHARGING), claim, outcome, "task-1", NOW)

    assert done == decisions.not_accepted(claim, error, NOW)


@pytest.mark.parametrize("next_stage", [None, Stage.MUSIC])
def test_a_voice_that_is_ready(next_stage: Stage | None) -> None:
    """The job succeeds, or continues with its song."""
    claim = poll_claim(Stage.VOICE, next_stage=next_stage)

    done = steps.finished(job_at(Stage.VOICE, State.PENDING), claim, succeeds(persona_id="p"), NOW)

    assert done == decisions.transition_from_result(claim, VoiceReady("p", "Ana"), NOW)


def test_songs_that_are_ready() -> None:
    """All clips are there."""
    claim = poll_claim(Stage.MUSIC)

    done = steps.finished(job_at(Stage.MUSIC, State.PENDING), claim, succeeds(clips=CLIPS), NOW)

    assert done == decisions.transition_from_result(claim, MusicReady(CLIPS), NOW)


@pytest.mark.parametrize("resubmits", [False, True])
def test_an_order_that_failed_upstream(resubmits: bool) -> None:
    """It is polled later, or submitted again where a retry has asked for that."""
    claim = poll_claim(Stage.VOICE, resubmits=resubmits)

    done = steps.finished(job_at(Stage.VOICE, State.PENDING), claim, fails("upstream_failed", "no"), NOW)

    assert done == decisions.transition_from_result(claim, TaskFailed("no"), NOW)


@pytest.mark.parametrize(
    ("code", "state", "expected"),
    [
        (
            FailureCode.EXPIRED,
            State.QUEUED,
            lambda job: decisions.expired(StalledJob(job.id, job.version, job.state, job.stage), NOW),
        ),
        (FailureCode.RECORDING_UNFIT, State.ADMITTED, None),
        (FailureCode.RECORDING_UNREACHABLE, State.ADMITTED, None),
        (FailureCode.REFUSED, State.QUEUED, None),
    ],
)
def test_a_job_that_fails_before_its_order(
    code: FailureCode, state: State, expected: Callable[[Job], object] | None
) -> None:
    """In the state in which the real workers find out; other failures come later."""
    job = job_at(Stage.VOICE, state)
    message = "not submitted within its time limit"

    done = steps.not_ordered(job, fails(code, message), NOW)

    if code is FailureCode.REFUSED:
        assert done is None
        return
    assert done is not None
    assert (done.state, done.to_state, done.reason) == (state, State.FAILED, code)
    assert expected is None or done == expected(job)
    assert steps.not_ordered(replace(job, state=State.WAITING), fails(code), NOW) is None
