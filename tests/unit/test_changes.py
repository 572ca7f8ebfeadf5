"""What a person may do to an unsure or failed job, and what it costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.jobs import sung
from voicequeue import Clip, Code, Failure, Job, NotAllowed, Stage, State, changes

NOW = 1_795_000_000.0
SONG = Clip("c", "succeeded", audio_url="https://cdn.example/1.mp3")


def job(state: State, stage: Stage = Stage.VOICE, **more: object) -> Job:
    """A job with a song, standing there."""
    made = Job("j1", 7, state, stage, sung(), NOW - 60, NOW - 30, attempt=1)
    return replace(made, **more)  # type: ignore[arg-type]


def test_a_task_id_that_somebody_knows_means_that_it_was_charged() -> None:
    """The job is pending, due at once, and its credits are counted."""
    move = changes.take_up(job(State.UNSURE, Stage.MUSIC), NOW, task_id="t1")

    assert (move.to, move.due, move.credits) == (State.PENDING, NOW, 15)
    assert move.fields == {"music.task": "t1", "since": f"{NOW:.6f}", "asked": "0", "answer": None}


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


def failed(stage: Stage, code: Code, *, known: bool = True, **more: object) -> Job:
    """A job that failed there, whose task id is known or not."""
    task_ids = {stage: "t1"} if known else {}
    return job(State.FAILED, stage, failure=Failure(code, stage, "no"), task_ids=task_ids, **more)


@pytest.mark.parametrize(
    ("broken", "cost", "cost_resubmitted", "again"),
    [
        (failed(Stage.VOICE, Code.REFUSED, known=False), 19, 19, False),
        (failed(Stage.VOICE, Code.UPSTREAM_FAILED), 19, 19, True),
        (failed(Stage.MUSIC, Code.UPSTREAM_FAILED, persona_id="p"), 15, 15, True),
        (failed(Stage.VOICE, Code.ABANDONED, known=False), 19, 19, True),
        (failed(Stage.VOICE, Code.DEADLINE), 15, 19, False),
        (failed(Stage.MUSIC, Code.DEADLINE, persona_id="p"), 0, 15, False),
        (failed(Stage.VOICE, Code.DEADLINE, persona_id="p"), 15, 15, False),
        (failed(Stage.VOICE, Code.ABANDONED), 15, 19, False),
    ],
)
def test_retrying_costs_what_is_still_to_be_paid(broken: Job, cost: int, cost_resubmitted: int, again: bool) -> None:
    """Nothing for a stage that has its result, nor for one that upstream can be asked about; the stages after it."""
    assert changes.cost(broken) == cost
    assert changes.cost(broken, resubmit=True) == cost_resubmitted
    assert changes.pays_again(broken) is again
    assert changes.pays_again(broken, resubmit=True) is (
        not broken.has_result and broken.failure is not None and (broken.failure.code is not Code.REFUSED)
    )


def test_who_failed_with_another_jobs_voice_has_paid_for_none() -> None:
    """What was charged was that one's; retrying this one pays for the first time."""
    assert not changes.pays_again(failed(Stage.VOICE, Code.UPSTREAM_FAILED, known=False, attempt=0))


def test_a_result_that_came_late_is_taken_up() -> None:
    """A voice leads to its song, a song to the end; nothing is asked or paid."""
    voice = changes.retry(failed(Stage.VOICE, Code.DEADLINE, persona_id="p"), NOW)
    song = changes.retry(failed(Stage.MUSIC, Code.DEADLINE, persona_id="p", clips=(SONG,)), NOW)

    assert (voice.to, voice.to_stage, voice.due) == (State.QUEUED, Stage.MUSIC, None)
    assert (song.to, song.credits, song.fields["settled"]) == (State.SUCCEEDED, 0, f"{NOW:.6f}")


def test_the_songs_that_are_missing_of_one_that_succeeded_are_asked_for_free() -> None:
    """It stays succeeded, and is asked about at once; nothing is ordered again, also where somebody says so."""
    rest = (SONG, Clip("d", "running"))
    incomplete = replace(failed(Stage.MUSIC, Code.DEADLINE, clips=rest), state=State.SUCCEEDED, failure=None)

    move = changes.retry(incomplete, NOW)

    assert (move.to, move.due, move.credits, changes.cost(incomplete)) == (State.SUCCEEDED, NOW, 0, 0)
    with pytest.raises(NotAllowed):
        changes.retry(incomplete, NOW, resubmit=True)
    with pytest.raises(NotAllowed):
        changes.retry(replace(incomplete, clips=(SONG, Clip("d", "failed"))), NOW)


def test_songs_that_were_named_and_never_came_are_no_result() -> None:
    """A retry asks again, free; ordering anew forgets them."""
    late = failed(Stage.MUSIC, Code.DEADLINE, clips=(Clip("c", "succeeded"), Clip("d", "running")))

    assert (changes.retry(late, NOW).to, changes.cost(late)) == (State.PENDING, 0)
    anew = changes.retry(late, NOW, resubmit=True)
    assert (anew.to, anew.fields["clips"]) == (State.QUEUED, None)


def test_a_part_of_a_song_that_came_late_is_taken_up_and_the_rest_asked_for() -> None:
    """A link that is there is a result."""
    part = failed(Stage.MUSIC, Code.DEADLINE, clips=(SONG, Clip("d", "running")))

    move = changes.retry(part, NOW)

    assert (move.to, move.due, changes.cost(part)) == (State.SUCCEEDED, NOW, 0)


def test_ordering_anew_forgets_the_old_order() -> None:
    """What the next charge leads to is not mixed up with it."""
    late = failed(Stage.VOICE, Code.DEADLINE)

    assert changes.retry(late, NOW).to is State.PENDING
    move = changes.retry(late, NOW, resubmit=True)
    assert (move.to, move.reason, move.fields["voice.task"]) == (State.QUEUED, "retry: order again", None)
