"""What a person may do to an unsure or failed job, and what it costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.jobs import sung
from voicequeue import Code, Failure, Job, NotAllowed, Stage, State, changes

NOW = 1_795_000_000.0


def job(state: State, stage: Stage = Stage.VOICE, **more: object) -> Job:
    """A job with a song, standing there."""
    made = Job("j1", 7, state, stage, sung(), NOW - 60, NOW - 30, attempt=1)
    return replace(made, **more)  # type: ignore[arg-type]


def test_a_task_id_that_somebody_knows_means_that_it_was_charged() -> None:
    """The job is pending, due at once, and its credits are counted."""
    move = changes.take_up(job(State.UNSURE, Stage.MUSIC), NOW, task_id="t1")

    assert (move.to, move.due, move.credits) == (State.PENDING, NOW, 15)
    assert move.fields == {"music.task": "t1", "since": f"{NOW:.6f}"}


def test_ordering_again_counts_nothing_before_it_is_charged() -> None:
    """The job has its slot again; the next charge is counted when upstream takes it."""
    move = changes.order_again(job(State.UNSURE), NOW)

    assert (move.to, move.due, move.credits) == (State.ADMITTED, NOW, 0)


def test_giving_up_is_a_failure_that_says_so() -> None:
    """With a code of its own."""
    move = changes.abandon(job(State.UNSURE), NOW)

    assert (move.to, move.reason) == (State.FAILED, Code.ABANDONED)


@pytest.mark.parametrize("state", [state for state in State if state is not State.UNSURE])
def test_only_an_unsure_job_can_be_reviewed(state: State) -> None:
    """Anything else would pay twice, or throw away what was paid."""
    with pytest.raises(NotAllowed, match=f"only an unsure job can be reviewed; job j1 is {state}"):
        changes.order_again(job(state), NOW)
    with pytest.raises(NotAllowed):
        changes.abandon(job(state), NOW)


def test_retrying_costs_what_is_still_to_be_paid() -> None:
    """Both stages from the voice on, one from the song on; nothing where asking again is enough."""
    late = Failure(Code.DEADLINE, Stage.MUSIC, "late")

    assert changes.cost(job(State.FAILED)) == 19
    assert changes.cost(job(State.FAILED, Stage.MUSIC)) == 15
    assert changes.can_be_asked_again(job(State.FAILED, Stage.MUSIC, failure=late, task_ids={Stage.MUSIC: "t1"}))
    assert not changes.can_be_asked_again(job(State.FAILED, Stage.MUSIC, failure=late))
