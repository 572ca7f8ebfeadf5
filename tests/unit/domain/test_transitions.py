"""Transitions of unsure and failed jobs that an operator requests, and their cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.jobs import voice_with_song
from voicequeue import Clip, Failure, FailureCode, InvalidStateError, Job, Stage, State
from voicequeue.domain import serialization, transitions
from voicequeue.domain.claims import ChargedOrder
from voicequeue.domain.job import FailureReport, Transition

NOW = 1_795_000_000.0
SONG = Clip("c", "succeeded", audio_url="https://cdn.example/1.mp3")


def job(state: State, stage: Stage = Stage.VOICE, **more: object) -> Job:
    """Return a job with a song, in that state."""
    record = Job("j1", 7, state, stage, voice_with_song(), NOW - 60, NOW - 30, attempt=1)
    return replace(record, **more)  # type: ignore[arg-type]


def named(record: Job, stage: Stage = Stage.VOICE, attempt: int = 1) -> Transition | None:
    """Return the transition of a job when upstream confirms that order."""
    return transitions.continue_with_order(record, ChargedOrder(record.id, stage, attempt, "t9"), NOW, reason="why")


def test_a_task_id_that_is_named_late_means_that_it_was_charged() -> None:
    """The job is pending and due at once, and its credits are counted."""
    move = named(job(State.UNSURE, Stage.MUSIC), Stage.MUSIC)

    assert move is not None
    assert (move.to_state, move.due, move.credits, move.attempt) == (State.PENDING, NOW, 15, 1)
    unknown_yet = dict.fromkeys(("upstream_response", "failure_report", "resubmit"))
    assert move.fields == {"music.task": "t9", "submitted_at": f"{NOW:.6f}", "not_ready_at": "0", **unknown_yet}


WITHOUT_AN_ORDER = (State.WAITING, State.QUEUED, State.ADMITTED, State.UNSURE, State.FAILED, State.CANCELLED)


@pytest.mark.parametrize("state", WITHOUT_AN_ORDER)
@pytest.mark.parametrize("attempt", [1, 3])
def test_a_job_without_an_order_continues_with_the_one_that_is_named(state: State, attempt: int) -> None:
    """This holds for any state and after any number of refused orders; a settled job keeps the result."""
    move = named(job(state, attempt=attempt))

    assert move is not None
    is_over = state in (State.FAILED, State.CANCELLED)
    assert move.to_state is (state if is_over else State.PENDING)
    assert (move.attempt, move.due, move.credits) == (1, NOW, 4)
    was_about_to_be_submitted = state in (State.WAITING, State.QUEUED, State.ADMITTED)
    assert move.fields["resubmit"] == ("1" if was_about_to_be_submitted else None)


@pytest.mark.parametrize(
    "record",
    [
        job(State.PENDING, attempt=2, task_ids={Stage.VOICE: "t2"}),
        job(State.FAILED, attempt=2, task_ids={Stage.VOICE: "t2"}),
        job(State.CHARGING, attempt=2),
        job(State.SUCCEEDED, attempt=2, persona_id="p"),
        job(State.QUEUED, Stage.MUSIC, persona_id="p"),
        job(State.CHARGING, Stage.MUSIC, attempt=2, persona_id="p"),
    ],
    ids=lambda record: f"{record.state} at the {record.stage}" if isinstance(record, Job) else None,
)
def test_a_job_that_has_a_newer_order_or_the_result_does_without_the_one_that_is_named(record: Job) -> None:
    """Its charge is counted without a transition."""
    assert named(record) is None


def test_a_person_may_name_what_is_unsure_or_was_lost() -> None:
    """It is the latest of those orders, never a known one."""
    assert transitions.lost_order(job(State.UNSURE, attempt=2), "t9").attempt == 2
    lost = job(State.PENDING, Stage.MUSIC, attempt=3, lost_stages={1: Stage.VOICE, 2: Stage.VOICE})
    assert transitions.lost_order(lost, "t9") == ChargedOrder("j1", Stage.VOICE, 2, "t9")
    with pytest.raises(InvalidStateError, match="only an unsure job can be reviewed"):
        transitions.lost_order(job(State.PENDING), "t9")
    with pytest.raises(InvalidStateError, match="has this task already"):
        transitions.lost_order(replace(lost, charged_task_ids={3: "t9"}), "t9")


def test_ordering_again_counts_nothing_before_it_is_charged() -> None:
    """The job has its slot again; its next charge is counted when upstream accepts it."""
    move = transitions.resubmit(job(State.UNSURE, attempt=2, lost_stages={1: Stage.VOICE}), NOW)

    assert (move.to_state, move.due, move.credits) == (State.ADMITTED, NOW, 0)
    assert move.fields == {"lost_orders": '{"1": "voice", "2": "voice"}'}


def test_giving_up_is_a_failure_that_says_so() -> None:
    """The failure has its own code."""
    move = transitions.abandon(job(State.UNSURE), NOW)

    assert (move.to_state, move.reason) == (State.FAILED, FailureCode.ABANDONED)


@pytest.mark.parametrize("state", [state for state in State if state is not State.UNSURE])
def test_only_an_unsure_job_can_be_reviewed(state: State) -> None:
    """Any other job would be paid twice, or lose what was paid."""
    with pytest.raises(InvalidStateError, match=f"only an unsure job can be reviewed; job j1 is {state}"):
        transitions.resubmit(job(state), NOW)
    with pytest.raises(InvalidStateError):
        transitions.abandon(job(state), NOW)


def failed(stage: Stage, code: FailureCode, *, has_task: bool = True, **more: object) -> Job:
    """Return a job that failed at that stage, with or without a known task id."""
    task_ids = {stage: "t1"} if has_task else {}
    return job(State.FAILED, stage, failure=Failure(code, stage, "no"), task_ids=task_ids, **more)


@pytest.mark.parametrize(
    ("broken", "cost", "cost_resubmitted", "again"),
    [
        (failed(Stage.VOICE, FailureCode.REFUSED, has_task=False), 19, 19, False),
        (failed(Stage.VOICE, FailureCode.UPSTREAM_FAILED), 19, 19, True),
        (failed(Stage.MUSIC, FailureCode.UPSTREAM_FAILED, persona_id="p"), 15, 15, True),
        (failed(Stage.VOICE, FailureCode.ABANDONED, has_task=False), 19, 19, True),
        (failed(Stage.VOICE, FailureCode.DEADLINE), 15, 19, False),
        (failed(Stage.MUSIC, FailureCode.DEADLINE, persona_id="p"), 0, 15, False),
        (failed(Stage.VOICE, FailureCode.DEADLINE, persona_id="p"), 15, 15, False),
        (failed(Stage.VOICE, FailureCode.ABANDONED), 15, 19, False),
        (failed(Stage.VOICE, FailureCode.EXPIRED), 15, 19, False),
        (failed(Stage.VOICE, FailureCode.EXPIRED, has_task=False, lost_stages={1: Stage.VOICE}), 19, 19, True),
    ],
)
def test_retrying_costs_what_is_still_to_be_paid(broken: Job, cost: int, cost_resubmitted: int, again: bool) -> None:
    """A stage with a result or with an order to poll costs nothing; later stages do."""
    assert transitions.retry_cost(broken) == cost
    assert transitions.retry_cost(broken, resubmit=True) == cost_resubmitted
    assert transitions.pays_again(broken) is again
    assert transitions.pays_again(broken, resubmit=True) is (
        not broken.has_result and broken.failure is not None and (broken.failure.code is not FailureCode.REFUSED)
    )


def test_a_job_that_failed_with_another_jobs_voice_paid_for_none() -> None:
    """The charge was that of the other job, so a retry pays for the first time."""
    assert not transitions.pays_again(failed(Stage.VOICE, FailureCode.UPSTREAM_FAILED, has_task=False, attempt=0))


def test_a_result_that_came_late_is_taken_up() -> None:
    """A voice leads to its song and a song to success; nothing is polled or paid."""
    voice = transitions.retry(failed(Stage.VOICE, FailureCode.DEADLINE, persona_id="p"), NOW)
    song = transitions.retry(failed(Stage.MUSIC, FailureCode.DEADLINE, persona_id="p", clips=(SONG,)), NOW)

    assert (voice.to_state, voice.to_stage, voice.due) == (State.QUEUED, Stage.MUSIC, None)
    assert (song.to_state, song.credits, song.fields["settled"]) == (State.SUCCEEDED, 0, f"{NOW:.6f}")


def test_the_songs_that_are_missing_of_one_that_succeeded_are_asked_for_free() -> None:
    """The job stays succeeded and is polled at once; it is never resubmitted, even on request."""
    rest = (SONG, Clip("d", "running"))
    incomplete = replace(failed(Stage.MUSIC, FailureCode.DEADLINE, clips=rest), state=State.SUCCEEDED, failure=None)

    move = transitions.retry(incomplete, NOW)

    assert (move.to_state, move.due, move.credits, transitions.retry_cost(incomplete)) == (State.SUCCEEDED, NOW, 0, 0)
    with pytest.raises(InvalidStateError):
        transitions.retry(incomplete, NOW, resubmit=True)
    with pytest.raises(InvalidStateError):
        transitions.retry(replace(incomplete, clips=(SONG, Clip("d", "failed"))), NOW)


def test_songs_that_were_named_and_never_came_are_no_result() -> None:
    """A retry polls again, free; resubmitting removes them."""
    late = failed(Stage.MUSIC, FailureCode.DEADLINE, clips=(Clip("c", "succeeded"), Clip("d", "running")))

    assert (transitions.retry(late, NOW).to_state, transitions.retry_cost(late)) == (State.PENDING, 0)
    resubmitted = transitions.retry(late, NOW, resubmit=True)
    assert (resubmitted.to_state, resubmitted.fields["clips"]) == (State.QUEUED, None)


def test_a_part_of_a_song_that_came_late_is_taken_up_and_the_rest_asked_for() -> None:
    """One available link is a result."""
    part = failed(Stage.MUSIC, FailureCode.DEADLINE, clips=(SONG, Clip("d", "running")))

    move = transitions.retry(part, NOW)

    assert (move.to_state, move.due, transitions.retry_cost(part)) == (State.SUCCEEDED, NOW, 0)


def test_what_upstream_failed_is_asked_about_before_it_is_ordered_again() -> None:
    """The poll is free, and the job is resubmitted as soon as upstream repeats the failure."""
    move = transitions.retry(failed(Stage.VOICE, FailureCode.UPSTREAM_FAILED), NOW)

    assert (move.to_state, move.due, move.fields["resubmit"]) == (State.PENDING, NOW, "1")
    assert serialization.parse_failure_report(move.fields["failure_report"]) == FailureReport(0.0, "no")
    resubmitted = transitions.retry(failed(Stage.VOICE, FailureCode.UPSTREAM_FAILED), NOW, resubmit=True)
    assert (resubmitted.to_state, resubmitted.fields["voice.task"], resubmitted.fields["resubmit"]) == (
        State.QUEUED,
        None,
        None,
    )


def test_resubmitting_forgets_the_old_order() -> None:
    """The results of both orders are not mixed up."""
    late = failed(Stage.VOICE, FailureCode.DEADLINE)

    assert transitions.retry(late, NOW).to_state is State.PENDING
    move = transitions.retry(late, NOW, resubmit=True)
    assert (move.to_state, move.reason, move.fields["voice.task"]) == (State.QUEUED, "retry: resubmit", None)
