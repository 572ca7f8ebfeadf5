"""Transitions that follow from each answer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tasks import decisions
from tasks.musicapi import (
    AmbiguousFailure,
    InvalidRequest,
    Moderated,
    MusicReady,
    NotReady,
    PaymentRequired,
    RateLimited,
    TaskFailed,
    TaskResult,
    Unauthorized,
    Unavailable,
    UpstreamError,
    VoiceReady,
)
from voicequeue import Song, VoiceJob
from voicequeue.domain import serialization
from voicequeue.domain.claims import PollClaim, StalledJob, SubmitClaim
from voicequeue.domain.clip import Clip
from voicequeue.domain.job import Failure, FailureReport, Transition
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.domain.states import FailureCode, State

NOW = 1_800_000_000.0
DEADLINE = 900.0
SPEC = VoiceJob(audio_url="https://recordings.example/anna.mp3", song=Song(prompt="la la"))
CLIPS = (Clip("c1", "succeeded", "Song", "https://cdn.example/1.mp3", None, 120.5), Clip("c2", "failed"))
SECOND = Clip("c2", "succeeded", "Song", "https://cdn.example/2.mp3")

BOTH_STAGES = pytest.mark.parametrize("stage", list(Stage))


def charged(stage: Stage) -> SubmitClaim:
    """Return a claim to send a POST."""
    return SubmitClaim(
        "j1", 3, stage, 1, SPEC.canonical_content(), None if stage is Stage.VOICE else "p1", NOW + 90, "h"
    )


def claimed(
    stage: Stage, *, since: float = NOW - 30, song_is_next: bool = False, state: State = State.PENDING, **more: Any
) -> PollClaim:
    """Return a claim to poll a task."""
    return PollClaim("j1", 5, state, stage, "t1", since, Stage.MUSIC if song_is_next else None, **more)


def failure(move: Transition | None) -> Failure:
    """Return the failure that a transition to `failed` writes; the transition settles the job."""
    assert move is not None
    assert move.to_state is State.FAILED
    assert move.fields["settled"] == f"{NOW:.6f}"
    written = serialization.parse_failure(move.fields["failure"])
    assert written is not None
    assert move.reason == written.code
    return written


# ── after a POST ───────────────────────────────────────────────────────────────────────────────


@BOTH_STAGES
def test_an_accepted_order_is_pending_with_its_task_and_its_price(stage: Stage) -> None:
    """The task id, the time, the credits and the first poll are written together."""
    move = decisions.accepted(charged(stage), "t1", NOW, 20)

    assert (move.job_id, move.version, move.state, move.stage) == ("j1", 3, State.CHARGING, stage)
    assert (move.to_state, move.to_stage, move.due, move.credits) == (State.PENDING, None, NOW + 20, PRICES[stage])
    unknown_yet = dict.fromkeys(("upstream_response", "not_ready_at", "failure_report", "resubmit"))
    assert move.fields == {f"{stage}.task": "t1", "submitted_at": f"{NOW:.6f}", **unknown_yet}


@BOTH_STAGES
@pytest.mark.parametrize(
    ("error", "code"), [(InvalidRequest("no"), FailureCode.REFUSED), (Moderated("no"), FailureCode.MODERATED)]
)
def test_a_refused_order_fails_its_job(stage: Stage, error: UpstreamError, code: FailureCode) -> None:
    """The failure is permanent, with upstream's message and no credits."""
    move = decisions.not_accepted(charged(stage), error, NOW)

    assert failure(move) == Failure(code, stage, "no")
    assert (move.state, move.credits, move.due) == (State.CHARGING, 0, None)


@BOTH_STAGES
@pytest.mark.parametrize("error", [Unauthorized("no"), PaymentRequired("no"), RateLimited("no"), Unavailable("no")])
def test_an_order_that_certainly_cost_nothing_is_queued_again(stage: Stage, error: UpstreamError) -> None:
    """The job returns to the backlog, and only the reason is written."""
    move = decisions.not_accepted(charged(stage), error, NOW)

    assert move == Transition("j1", 3, State.CHARGING, stage, State.QUEUED, reason="no", holder="h")


@BOTH_STAGES
def test_an_order_that_may_have_cost_something_is_unsure(stage: Stage) -> None:
    """It is never sent again automatically, no credits are counted, and the answer is kept for an operator."""
    for answer in (None, "<html>Bad gateway"):
        move = decisions.not_accepted(charged(stage), AmbiguousFailure("HTTP 502", answer), NOW)

        kept = {"upstream_response": answer}
        assert (move.to_state, move.reason, move.fields) == (State.UNSURE, "HTTP 502", kept)
        assert (move.version, move.state, move.holder) == (3, State.CHARGING, "h")


@BOTH_STAGES
def test_a_charge_of_a_dead_worker_is_unsure(stage: Stage) -> None:
    """A worker that died while charging may have sent its POST."""
    move = decisions.worker_died("j1", 3, stage)

    assert (move.state, move.stage, move.to_state) == (State.CHARGING, stage, State.UNSURE)
    assert "died" in move.reason


@BOTH_STAGES
def test_a_job_whose_order_was_lost_does_not_say_that_nothing_was_ordered(stage: Stage) -> None:
    """It expires too, and its first order may have been charged."""
    move = decisions.expired(StalledJob("j1", 3, State.QUEUED, stage, may_be_charged=True), NOW)

    expired = failure(move)
    assert (expired.code, "may have been charged" in expired.message) == (FailureCode.EXPIRED, True)


@BOTH_STAGES
def test_a_job_that_was_not_submitted_in_its_time_expires(stage: Stage) -> None:
    """It fails at its current stage and is settled."""
    move = decisions.expired(StalledJob("j1", 3, State.QUEUED, stage), NOW)

    assert (move.job_id, move.version, move.state, move.stage) == ("j1", 3, State.QUEUED, stage)
    assert (move.reason, move.credits, move.due) == (FailureCode.EXPIRED, 0, None)
    expired = failure(move)
    assert (expired.code, expired.stage) == (FailureCode.EXPIRED, stage)


# ── after a poll ───────────────────────────────────────────────────────────────────────────────


def test_a_ready_voice_without_a_song_is_the_result() -> None:
    """The job has succeeded and is settled."""
    move = decisions.transition_from_result(claimed(Stage.VOICE), VoiceReady("p1", "Anna"), NOW)

    fields = {"persona_id": "p1", "voice_name": "Anna", "settled": f"{NOW:.6f}"}
    assert move == Transition("j1", 5, State.PENDING, Stage.VOICE, State.SUCCEEDED, fields=fields)


def test_a_ready_voice_with_a_song_goes_on_to_the_song_at_once() -> None:
    """The persona is kept, and the job holds its slot."""
    move = decisions.transition_from_result(claimed(Stage.VOICE, song_is_next=True), VoiceReady("p1", None), NOW)

    fields = {"persona_id": "p1", "voice_name": None}
    assert move == Transition(
        "j1", 5, State.PENDING, Stage.VOICE, State.ADMITTED, to_stage=Stage.MUSIC, due=NOW, fields=fields
    )


def test_a_ready_song_is_the_result() -> None:
    """Both clips are kept, even a failed one."""
    move = decisions.transition_from_result(claimed(Stage.MUSIC), MusicReady(CLIPS), NOW)

    assert move is not None
    assert (move.state, move.stage, move.to_state) == (State.PENDING, Stage.MUSIC, State.SUCCEEDED)
    assert serialization.parse_clips(move.fields["clips"]) == CLIPS
    assert move.fields["settled"] == f"{NOW:.6f}"


#: Seconds after the first report of a failure at which a second one is final.
RECHECK_S = 10.0


@BOTH_STAGES
def test_a_task_is_failed_when_upstream_says_so_twice_some_time_apart(stage: Stage) -> None:
    """The failure contains upstream's reason and the stage; the order is still polled."""
    first = decisions.failure_report(claimed(stage), TaskFailed("busy"), NOW - RECHECK_S)
    assert first == FailureReport(NOW - RECHECK_S, "busy")
    assert decisions.transition_from_result(claimed(stage), TaskFailed("busy"), NOW, RECHECK_S) is None

    again = claimed(stage, failure_report=first)
    move = decisions.transition_from_result(again, TaskFailed("no clear speaker"), NOW, RECHECK_S)

    assert failure(move) == Failure(FailureCode.UPSTREAM_FAILED, stage, "no clear speaker")
    assert move is not None
    assert move.due == NOW + 15


@BOTH_STAGES
def test_failures_that_are_reported_at_once_are_one_report(stage: Stage) -> None:
    """A webhook triggers a poll right after the first report, whose time is kept."""
    again = claimed(stage, failure_report=FailureReport(NOW - RECHECK_S + 1, "busy"))

    assert decisions.transition_from_result(again, TaskFailed("still busy"), NOW, RECHECK_S) is None
    assert decisions.failure_report(again, TaskFailed("still busy"), NOW) == FailureReport(
        NOW - RECHECK_S + 1, "still busy"
    )


@BOTH_STAGES
def test_any_other_answer_revokes_a_reported_failure(stage: Stage) -> None:
    """A task that is not ready, or ready, has not failed."""
    doubted = claimed(stage, failure_report=FailureReport(NOW - 60, "busy"))
    ready: TaskResult = VoiceReady("p1", None) if stage is Stage.VOICE else MusicReady(CLIPS)

    assert decisions.failure_report(doubted, NotReady(), NOW) is None
    move = decisions.transition_from_result(doubted, ready, NOW, RECHECK_S)
    assert move is not None
    assert move.to_state is State.SUCCEEDED


@BOTH_STAGES
def test_what_is_to_be_ordered_again_is_queued_when_its_failure_is_certain(stage: Stage) -> None:
    """The job was retried: its old task is not polled again, and nothing else is counted."""
    retried = claimed(stage, failure_report=FailureReport(0.0, "no"), resubmits=True)

    move = decisions.transition_from_result(retried, TaskFailed("no"), NOW, RECHECK_S)

    assert move is not None
    assert (move.to_state, move.due, move.credits) == (State.QUEUED, None, 0)
    assert move.fields == {f"{stage}.task": None, "failure_report": None, "resubmit": None}


def unsettling_results(stage: Stage) -> list[TaskResult]:
    """Return results that do not settle this stage, such as the result of the other stage."""
    return [NotReady(), MusicReady(CLIPS) if stage is Stage.VOICE else VoiceReady("p1", None)]


@BOTH_STAGES
def test_a_result_that_settles_nothing_is_polled_again(stage: Stage) -> None:
    """The task is not ready, or the result is that of the other stage."""
    for result in unsettling_results(stage):
        assert decisions.transition_from_result(claimed(stage), result, NOW) is None


@BOTH_STAGES
def test_a_stage_has_time_until_its_deadline(stage: Stage) -> None:
    """After the deadline it fails with upstream's last message."""
    assert decisions.overdue(claimed(stage, since=NOW - DEADLINE), NOW, DEADLINE) is None
    late = claimed(stage, since=NOW - DEADLINE - 0.01)
    expected = Failure(FailureCode.DEADLINE, stage, "not ready 900 s after it was submitted")
    assert failure(decisions.overdue(late, NOW, DEADLINE)) == expected
    with_message = failure(decisions.overdue(late, NOW, DEADLINE, message="task not found."))
    assert with_message.message == f"{expected.message}; upstream says: task not found."


@BOTH_STAGES
def test_a_result_that_comes_after_the_deadline_is_still_taken(stage: Stage) -> None:
    """The result was paid for; a repeated failure is reported as such."""
    late = claimed(stage, since=NOW - 10 * DEADLINE)
    ready: TaskResult = VoiceReady("p1", None) if stage is Stage.VOICE else MusicReady(CLIPS)

    move = decisions.transition_from_result(late, ready, NOW)

    assert move is not None
    assert move.to_state is State.SUCCEEDED
    doubted = replace(late, failure_report=FailureReport(NOW - 60, "no"))
    assert failure(decisions.transition_from_result(doubted, TaskFailed("no"), NOW)).code is FailureCode.UPSTREAM_FAILED


@BOTH_STAGES
def test_after_a_deadline_polls_continue_in_growing_intervals(stage: Stage) -> None:
    """The delay is half the time since the order."""
    move = decisions.overdue(claimed(stage, since=NOW - 1000), NOW, DEADLINE)

    assert move is not None
    assert move.due == NOW + 500


# ── incomplete songs ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("twin", ["running", "streaming", "succeeded", "a word of next year"])
def test_at_the_deadline_the_songs_that_are_there_are_the_result(twin: str) -> None:
    """A paid song with its link is a success; the other one is polled again."""
    clips = (CLIPS[0], Clip("c2", twin))
    late = claimed(Stage.MUSIC, since=NOW - 1000)

    move = decisions.overdue(late, NOW, DEADLINE, result=NotReady(clips))

    assert move is not None
    assert (move.to_state, move.due) == (State.SUCCEEDED, NOW + 500)
    assert serialization.parse_clips(move.fields["clips"]) == clips
    assert decisions.transition_from_result(late, NotReady(clips), NOW) is None


def test_at_the_deadline_songs_without_any_link_are_kept_with_the_failure() -> None:
    """The job fails with `deadline`; the named songs are kept and polled."""
    named = (Clip("c1", "succeeded"), Clip("c2", "succeeded"))

    move = decisions.overdue(claimed(Stage.MUSIC, since=NOW - 1000), NOW, DEADLINE, result=NotReady(named))

    assert failure(move).code is FailureCode.DEADLINE
    assert move is not None
    assert (serialization.parse_clips(move.fields["clips"]), move.due) == (named, NOW + 500)


@BOTH_STAGES
def test_every_decision_can_be_written(stage: Stage) -> None:
    """Every transition can be written as text."""
    moves = [
        decisions.accepted(charged(stage), "t1", NOW, 20),
        decisions.not_accepted(charged(stage), InvalidRequest("no"), NOW),
        decisions.not_accepted(charged(stage), AmbiguousFailure("lost"), NOW),
        decisions.worker_died("j1", 3, stage),
        decisions.overdue(claimed(stage, since=0), NOW, DEADLINE),
        decisions.expired(StalledJob("j1", 3, State.QUEUED, stage), NOW),
    ]
    for move in moves:
        assert move is not None
        line = serialization.transition_arguments(move)
        assert json.loads(json.dumps(line)) == line


def test_an_order_that_is_sent_again_does_not_wait_for_the_songs_of_the_one_that_failed() -> None:
    """Clips that the failed order named without a link are removed with its task."""
    named = (Clip("old", "running"),)
    claim = claimed(Stage.MUSIC, clips=named, failure_report=FailureReport(0.0, "no"), resubmits=True)

    move = decisions.transition_from_result(claim, TaskFailed("no"), NOW, 10.0)

    assert move is not None
    assert (move.to_state, move.fields["clips"], move.fields["music.task"]) == (State.QUEUED, None, None)
