"""What was paid and comes after nobody waits for it any more: it is kept, and nothing is paid for it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from simulator.process import Simulator
from tasks import webhooks
from tasks.poll import PollResult
from tasks.webhooks import Hint
from tests.integration.conftest import DEADLINE_S, FAILED, POLL_S, VOICE, Bench, Build, Saying, books_agree, voice
from tests.support.scripted import Scripted
from voicequeue import Code, Stage, State, VoiceQueue
from voicequeue.domain import transitions
from voicequeue.domain.job import Move


def asked(simulator: Simulator) -> int:
    """How many polls upstream got."""
    return int(simulator.ledger(charges=False)["calls"]["task"])


def cancelled(bench: Bench, job_id: str) -> None:
    """Somebody cancels it, at the time of the bench."""
    assert bench.store.apply([transitions.cancel(bench.job(job_id), bench.clock.now)], bench.clock.now) == [True]


def test_the_result_of_a_cancelled_job_is_kept_if_it_comes(bench: Bench, simulator: Simulator) -> None:
    """Its credits are spent; the voice is kept, no song is ordered, and nobody asks again."""
    [job_id] = bench.ordered(voice())
    cancelled(bench, job_id)

    assert bench.poll_when_due(Stage.VOICE, [job_id]) == PollResult()

    job = bench.job(job_id)
    assert (job.state, job.stage, job.credits) == (State.CANCELLED, Stage.VOICE, 4)
    assert job.persona_id
    assert bench.store.timeline(job_id)[-1].reason == "the voice came late, and is kept"
    assert bench.store.overdue(bench.clock.now + 1e6, patience=0) == []
    assert books_agree(bench, simulator)


def test_a_job_that_is_cancelled_while_its_order_was_lost_orders_no_song(bench: Bench, simulator: Simulator) -> None:
    """A webhook names the task: the voice was charged, and is kept when it comes."""
    simulator.turn(post_faults={"reset_after": 1})
    [job_id] = bench.admitted(voice())
    bench.submit(Stage.VOICE, [job_id])
    assert bench.job(job_id).state is State.UNSURE
    assert bench.store.withdraw([bench.job(job_id)], bench.clock.now) == [True]
    [charge] = simulator.ledger()["charges"]

    assert webhooks.take(bench.store, job_id, Stage.VOICE, 1, charge["task_id"]) is Hint.POLL
    assert bench.poll_when_due(Stage.VOICE, [job_id]) == PollResult()

    job = bench.job(job_id)
    assert (job.state, job.credits, bool(job.persona_id)) == (State.CANCELLED, 4, True)
    assert bench.admit() == {}
    assert books_agree(bench, simulator)


def test_the_answer_to_a_job_that_is_cancelled_meanwhile_is_written(
    bench: Bench, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The POST was on its way: its task is kept, the voice comes, and no song is ordered."""
    [job_id] = bench.admitted(voice())
    apply = bench.store.apply

    def cancelled_before(moves: Sequence[Move], now: float) -> list[bool]:
        monkeypatch.undo()
        assert bench.store.withdraw([bench.job(job_id)], now) == [True]
        return apply(moves, now)

    monkeypatch.setattr(bench.store, "apply", cancelled_before)
    bench.submit(Stage.VOICE, [job_id])
    assert bench.job(job_id).state is State.CANCELLED
    assert bench.poll_when_due(Stage.VOICE, [job_id]) == PollResult()

    assert bench.job(job_id).persona_id
    assert bench.admit() == {}
    assert books_agree(bench, simulator)


def test_a_cancelled_job_is_asked_about_ever_more_rarely(bench: Bench, simulator: Simulator) -> None:
    """Nobody waits for it: a handful of questions until its time is over, none of them by a message."""
    simulator.turn(voice_s=600)
    bench = bench.patient(late_s=1000)
    [job_id] = bench.ordered(voice())
    cancelled(bench, job_id)

    for _ in range(200):
        bench.clock.now += POLL_S
        late = bench.store.overdue(bench.clock.now, patience=0)
        assert [each.state for each in late] in ([], [State.CANCELLED])
        assert bench.poll(Stage.VOICE, [each.job_id for each in late]).rounds == []

    assert 5 <= asked(simulator) <= 15
    assert bench.store.overdue(bench.clock.now + 1e6, patience=0) == []
    assert "not looked for any more" in bench.store.timeline(job_id)[-1].reason


def past_its_deadline(bench: Bench, simulator: Simulator) -> str:
    """A job whose voice upstream did not make in time; the simulator is done with it the moment after."""
    simulator.turn(voice_s=600)
    [job_id] = bench.ordered(voice())
    bench.poll_for(Stage.VOICE, [job_id], DEADLINE_S + 1)
    failure = bench.job(job_id).failure
    assert failure is not None
    assert failure.code is Code.DEADLINE
    [charge] = simulator.ledger()["charges"]
    simulator.finish(charge["task_id"])
    return job_id


def asked_in_its_time(bench: Bench, job_id: str) -> None:
    """What the pulse does: a job that is over is asked about when its time has come, not before."""
    assert bench.store.overdue(bench.clock.now, patience=0) == []
    bench.clock.now += DEADLINE_S
    assert [each.job_id for each in bench.store.overdue(bench.clock.now, patience=0)] == [job_id]
    assert bench.poll(Stage.VOICE, [job_id]) == PollResult()


def test_a_voice_that_comes_after_its_deadline_is_kept_and_a_retry_pays_for_its_song_alone(
    bench: Bench, simulator: Simulator, queue: VoiceQueue
) -> None:
    """The job stays failed until somebody retries it, which then asks nothing about the voice."""
    job_id = past_its_deadline(bench, simulator)
    asked_in_its_time(bench, job_id)
    kept = bench.job(job_id)
    assert (kept.state, kept.persona_id is None, transitions.cost(kept)) == (State.FAILED, False, 15)
    questions = asked(simulator)

    assert queue.retry(job_id, resubmit=True).stage is Stage.MUSIC
    bench.admit()
    simulator.turn(music_s=0)
    bench.submit(Stage.MUSIC, [job_id])
    bench.poll_when_due(Stage.MUSIC, [job_id])

    assert bench.job(job_id).state is State.SUCCEEDED
    assert asked(simulator) == questions + 1
    assert [charge["kind"] for charge in simulator.ledger()["charges"]] == ["voice", "music"]
    assert books_agree(bench, simulator)


def test_a_webhook_after_the_deadline_brings_the_question_at_once(bench: Bench, simulator: Simulator) -> None:
    """It need not wait for the next look."""
    job_id = past_its_deadline(bench, simulator)
    bench = replace(bench, services=replace(bench.services, clock=Now()))

    assert webhooks.take(bench.store, job_id, Stage.VOICE, 1, None) is Hint.POLL
    bench.poll(Stage.VOICE, [job_id])

    assert bench.job(job_id).persona_id
    assert webhooks.take(bench.store, job_id, Stage.VOICE, 1, None) is Hint.NOTHING


@contextmanager
def failed_upstream(build: Build, *then: object) -> Iterator[tuple[Bench, str, Saying]]:
    """A job of which upstream said twice that its voice failed, and what it says of it afterwards."""
    script = Saying(FAILED, FAILED, *then)
    with Scripted(script) as upstream:
        bench = build(upstream.url)
        [job_id] = bench.ordered(voice())
        for _ in range(2):
            bench.poll_when_due(Stage.VOICE, [job_id])
        failure = bench.job(job_id).failure
        assert failure is not None
        assert failure.code is Code.UPSTREAM_FAILED
        yield bench, job_id, script


def test_what_upstream_failed_is_kept_if_it_comes_after_all(build: Build, queue: VoiceQueue) -> None:
    """It is asked about in its time, by itself; retrying it then pays for the song alone."""
    with failed_upstream(build, VOICE) as (bench, job_id, _):
        asked_in_its_time(bench, job_id)

    kept = bench.job(job_id)
    assert (kept.state, kept.persona_id, transitions.cost(kept)) == (State.FAILED, "p1", 15)
    assert queue.retry(job_id).stage is Stage.MUSIC


def test_what_upstream_says_of_a_failure_afterwards_changes_nothing(build: Build) -> None:
    """It is asked about until its time is over, in growing intervals; nothing is written for each answer."""
    with failed_upstream(build, FAILED) as (bench, job_id, _):
        moves = len(bench.store.timeline(job_id))
        for _ in range(2):
            asked_in_its_time(bench, job_id)

    assert len(bench.store.timeline(job_id)) == moves
    assert bench.job(job_id).may_still_come


def test_a_webhook_brings_the_question_whether_it_failed_indeed(build: Build) -> None:
    """The voice that upstream said had failed is there: it need not wait for the next look."""
    with failed_upstream(build, VOICE) as (bench, job_id, _):
        assert webhooks.take(bench.store, job_id, Stage.VOICE, 1, "task 1") is Hint.POLL
        replace(bench, services=replace(bench.services, clock=Now())).poll(Stage.VOICE, [job_id])

    assert (bench.job(job_id).persona_id, bench.job(job_id).credits) == ("p1", 4)


def test_retrying_what_upstream_failed_asks_before_it_orders(build: Build, queue: VoiceQueue) -> None:
    """It is ready by now: the job goes on to its song, and the voice is not paid again."""
    with failed_upstream(build, VOICE) as (bench, job_id, script):
        assert queue.retry(job_id).state is State.PENDING
        assert bench.poll_when_due(Stage.VOICE, [job_id]).to_music == [job_id]

    assert (script.orders, bench.job(job_id).credits) == (1, 4)


def test_a_retry_orders_again_when_upstream_repeats_that_it_failed(build: Build, queue: VoiceQueue) -> None:
    """One such answer is enough. Of the new order it takes two, as ever."""
    with failed_upstream(build, FAILED) as (bench, job_id, _):
        queue.retry(job_id)
        bench.poll_when_due(Stage.VOICE, [job_id])

        again = bench.job(job_id)
        assert (again.state, again.task_ids, again.orders) == (State.QUEUED, {}, {1: "task 1"})
        bench.admit()
        bench.submit(Stage.VOICE, [job_id])
        bench.poll_when_due(Stage.VOICE, [job_id])

    assert bench.job(job_id).state is State.PENDING
    assert (bench.job(job_id).credits, bench.store.credits()) == (8, 8)


def test_a_cancelled_job_that_upstream_failed_is_let_go_when_that_is_certain(
    bench: Bench, simulator: Simulator
) -> None:
    """Soon: others that wait for its voice do not wait for a day."""
    simulator.turn(voice_failure=1)
    [job_id] = bench.ordered(voice())
    cancelled(bench, job_id)

    bench.poll_when_due(Stage.VOICE, [job_id])
    assert bench.store.timeline(job_id)[-1].reason.startswith("cancelled")
    bench.poll_when_due(Stage.VOICE, [job_id])

    assert "upstream failed it" in bench.store.timeline(job_id)[-1].reason
    assert bench.store.overdue(bench.clock.now + 1e6, patience=0) == []


class Now:
    """A time after everything that is due now."""

    def __call__(self) -> float:
        return 4e9


def test_an_order_that_somebody_gave_up_is_found_again_by_its_webhook(
    bench: Bench, simulator: Simulator, queue: VoiceQueue
) -> None:
    """It was charged after all: the books say so, the voice is kept, and a retry pays for the song alone."""
    simulator.turn(post_faults={"cut_after": 1})
    [job_id] = bench.admitted(voice())
    bench.submit(Stage.VOICE, [job_id])
    queue.abandon(job_id)
    [charge] = simulator.ledger()["charges"]
    assert not books_agree(bench, simulator)

    told = webhooks.take(bench.store, job_id, Stage.VOICE, 1, charge["task_id"])

    assert told is Hint.POLL
    assert books_agree(bench, simulator)
    bench = replace(bench, services=replace(bench.services, clock=Now()))
    bench.poll(Stage.VOICE, [job_id])
    found = bench.job(job_id)
    assert (found.state, found.persona_id is None, transitions.cost(found)) == (State.FAILED, False, 15)
    assert webhooks.take(bench.store, job_id, Stage.VOICE, 1, charge["task_id"]) is Hint.NOTHING
    assert books_agree(bench, simulator)


@pytest.mark.parametrize("attempt", [0, 2])
def test_a_webhook_of_another_order_tells_nothing_about_the_one_given_up(
    bench: Bench, simulator: Simulator, queue: VoiceQueue, attempt: int
) -> None:
    """Only the order that was given up can be the one that was charged."""
    simulator.turn(post_faults={"cut_after": 1})
    [job_id] = bench.admitted(voice())
    bench.submit(Stage.VOICE, [job_id])
    queue.abandon(job_id)

    assert webhooks.take(bench.store, job_id, Stage.VOICE, attempt, "t9") is Hint.NOTHING
    assert bench.job(job_id).credits == 0


def test_what_is_kept_late_stands_in_the_books_of_its_state(bench: Bench, simulator: Simulator) -> None:
    """Noting what came moves the job nowhere: every count stays."""
    [job_id] = bench.ordered(voice())
    cancelled(bench, job_id)
    before = bench.store.counts()

    bench.poll_when_due(Stage.VOICE, [job_id])

    assert bench.store.counts() == before
    job = bench.job(job_id)
    stale = Move(job_id, job.version - 1, State.CANCELLED, Stage.VOICE, State.CANCELLED, due=1.0)
    assert bench.store.apply([stale], bench.clock.now) == [False]
