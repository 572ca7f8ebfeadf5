"""Transitions that follow from late results."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks import decisions
from tasks.musicapi import (
    MusicReady,
    NotReady,
    TaskFailed,
    TaskResult,
    VoiceReady,
)
from tests.unit.tasks.test_decisions import BOTH_STAGES, CLIPS, NOW, RECHECK_S, SECOND, claimed, unsettling_results
from voicequeue.domain import serialization
from voicequeue.domain.clip import Clip
from voicequeue.domain.job import FailureReport
from voicequeue.domain.serialization import clips_text
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import State


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
def test_late_songs_are_kept_as_they_arrive(state: State) -> None:
    """Polls end when all songs are complete; an answer without a new song is not written, and no link is lost."""
    none = claimed(Stage.MUSIC, state=state, since=NOW - 1000)
    first = decisions.transition_from_result(none, NotReady((CLIPS[0], Clip("c2", "running"))), NOW)
    assert first is not None
    assert (first.to_state, first.due, "part" in first.reason) == (state, NOW + 500, True)

    later_claim = replace(none, clips=serialization.parse_clips(first.fields["clips"]))
    assert (
        decisions.transition_from_result(later_claim, NotReady((Clip("c1", "succeeded"), Clip("c2", "streaming"))), NOW)
        is None
    )
    both = decisions.transition_from_result(later_claim, MusicReady((Clip("c1", "succeeded"), SECOND)), NOW)

    assert both is not None
    assert (both.to_state, both.due) == (state, None)
    assert serialization.parse_clips(both.fields["clips"]) == (CLIPS[0], SECOND)


def test_a_twin_that_fails_late_is_not_polled_again() -> None:
    """No new song arrived, and none is missing."""
    clips = (CLIPS[0], Clip("c2", "running"))

    move = decisions.transition_from_result(
        claimed(Stage.MUSIC, state=State.SUCCEEDED, clips=clips), MusicReady(CLIPS), NOW
    )

    assert move is not None
    assert (move.to_state, move.due, serialization.parse_clips(move.fields["clips"])) == (State.SUCCEEDED, None, CLIPS)


@BOTH_STAGES
@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_a_late_result_is_kept_and_changes_nothing_else(stage: Stage, state: State) -> None:
    """The job stays failed or cancelled, and keeps what was paid for."""
    over = claimed(stage, state=state, song_is_next=stage is Stage.VOICE)
    ready: TaskResult = VoiceReady("p1", "Anna") if stage is Stage.VOICE else MusicReady(CLIPS)

    move = decisions.transition_from_result(over, ready, NOW)

    assert move is not None
    assert (move.state, move.to_state, move.to_stage, move.due, move.credits) == (state, state, None, None, 0)
    expected = {"persona_id": "p1", "voice_name": "Anna"} if stage is Stage.VOICE else {"clips": clips_text(CLIPS)}
    assert move.fields == expected
    for result in unsettling_results(stage):
        assert decisions.transition_from_result(over, result, NOW) is None


@BOTH_STAGES
def test_a_late_failure_may_still_be_revoked(stage: Stage) -> None:
    """A failed job is still polled. A cancelled one, whose voice other jobs may wait for, records the failure."""
    failure_report = FailureReport(NOW - 60, "no speaker")
    for state in (State.FAILED, State.CANCELLED):
        assert (
            decisions.transition_from_result(claimed(stage, state=state), TaskFailed("no speaker"), NOW, RECHECK_S)
            is None
        )
    failed = decisions.transition_from_result(
        claimed(stage, state=State.FAILED, failure_report=failure_report), TaskFailed("no speaker"), NOW, RECHECK_S
    )
    cancelled = decisions.transition_from_result(
        claimed(stage, state=State.CANCELLED, failure_report=failure_report), TaskFailed("no speaker"), NOW, RECHECK_S
    )

    assert failed is None
    assert cancelled is not None
    assert (cancelled.to_state, cancelled.due, dict(cancelled.fields)) == (State.CANCELLED, None, {})


@BOTH_STAGES
def test_polls_for_a_late_result_end(stage: Stage) -> None:
    """When the time is over, the job stays unchanged and its timeline contains the reason."""
    over = claimed(stage, state=State.CANCELLED, since=NOW - 86_401)

    move = decisions.overdue(over, NOW, 86_400)

    assert move is not None
    assert (move.to_state, move.due) == (State.CANCELLED, None)
    assert "86400 s" in move.reason
    assert decisions.overdue(claimed(stage, state=State.CANCELLED, since=NOW - 86_399), NOW, 86_400) is None
