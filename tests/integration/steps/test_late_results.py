"""Late results: paid results of settled jobs are kept, and never paid for again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from simulator.process import Simulator
from tasks import webhooks
from tasks.poll import PollResult
from tasks.webhooks import WebhookEffect
from tests.integration.conftest import DEADLINE_S, FAILED, POLL_S, VOICE, Bench, Build, PollScript, charges_match, voice
from tests.support.scripted import ScriptedServer
from voicequeue import FailureCode, Stage, State, VoiceQueue
from voicequeue.domain import transitions
from voicequeue.domain.job import Transition


def polls_sent(simulator: Simulator) -> int:
    """Return the number of polls that upstream received."""
    return int(simulator.ledger(charges=False)["calls"]["task"])


def cancel(bench: Bench, job_id: str) -> None:
    """Cancel a job at the time of the bench."""
    assert bench.store.apply_transitions([transitions.cancel(bench.job(job_id), bench.clock.now)], bench.clock.now) == [
        True
    ]


def test_the_late_result_of_a_cancelled_job_is_kept(bench: Bench, simulator: Simulator) -> None:
    """Its credits are spent and its voice is kept; no song is submitted and polls end."""
    [job_id] = bench.submitted(voice())
    cancel(bench, job_id)

    assert bench.poll_when_due([job_id]) == PollResult()

    job = bench.job(job_id)
    assert (job.state, job.stage, job.credits) == (State.CANCELLED, Stage.VOICE, 4)
    assert job.persona_id
    assert bench.store.timeline(job_id)[-1].reason == "late voice kept"
    assert bench.store.lease_overdue(bench.clock.now + 1e6, overdue_s=0) == []
    assert charges_match(bench, simulator)


def test_a_job_that_is_cancelled_while_its_order_was_lost_orders_no_song(bench: Bench, simulator: Simulator) -> None:
    """A webhook names the task: the voice was charged, and is kept when it arrives."""
    simulator.set_dials(post_faults={"reset_after": 1})
    [job_id] = bench.admitted(voice())
    bench.submit(Stage.VOICE, [job_id])
    assert bench.job(job_id).state is State.UNSURE
    assert bench.store.request_cancellation([bench.job(job_id)], bench.clock.now) == [True]
    [charge] = simulator.ledger()["charges"]

    assert webhooks.process_webhook(bench.store, job_id, Stage.VOICE, 1, charge["task_id"]) is WebhookEffect.POLL
    assert bench.poll_when_due([job_id]) == PollResult()

    job = bench.job(job_id)
    assert (job.state, job.credits, bool(job.persona_id)) == (State.CANCELLED, 4, True)
    assert bench.admit() == {}
    assert charges_match(bench, simulator)


def test_the_answer_to_a_job_that_is_cancelled_meanwhile_is_written(
    bench: Bench, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The POST was in flight: its task id is kept, the voice arrives, and no song is submitted."""
    [job_id] = bench.admitted(voice())
    apply = bench.store.apply_transitions

    def cancel_before(moves: Sequence[Transition], now: float) -> list[bool]:
        monkeypatch.undo()
        assert bench.store.request_cancellation([bench.job(job_id)], now) == [True]
        return apply(moves, now)

    monkeypatch.setattr(bench.store, "apply_transitions", cancel_before)
    bench.submit(Stage.VOICE, [job_id])
    assert bench.job(job_id).state is State.CANCELLED
    assert bench.poll_when_due([job_id]) == PollResult()

    assert bench.job(job_id).persona_id
    assert bench.admit() == {}
    assert charges_match(bench, simulator)


def test_a_cancelled_job_is_polled_at_growing_intervals(bench: Bench, simulator: Simulator) -> None:
    """It is polled a few times until its time is over, never by a message."""
    simulator.set_dials(voice_s=600)
    bench = bench.with_timeouts(late_result_ttl_s=1000)
    [job_id] = bench.submitted(voice())
    cancel(bench, job_id)

    for _ in range(200):
        bench.clock.now += POLL_S
        late = bench.store.lease_overdue(bench.clock.now, overdue_s=0)
        assert [job.state for job in late] in ([], [State.CANCELLED])
        assert bench.poll([job.job_id for job in late]).rounds == []

    assert 5 <= polls_sent(simulator) <= 15
    assert bench.store.lease_overdue(bench.clock.now + 1e6, overdue_s=0) == []
    assert "polling ended" in bench.store.timeline(job_id)[-1].reason


def past_its_deadline(bench: Bench, simulator: Simulator) -> str:
    """Return a job whose voice exceeded its deadline; the simulator finishes it right afterwards."""
    simulator.set_dials(voice_s=600)
    [job_id] = bench.submitted(voice())
    bench.poll_for([job_id], DEADLINE_S + 1)
    failure = bench.job(job_id).failure
    assert failure is not None
    assert failure.code is FailureCode.DEADLINE
    [charge] = simulator.ledger()["charges"]
    simulator.complete_task(charge["task_id"])
    return job_id


def poll_when_late(bench: Bench, job_id: str) -> None:
    """Poll a settled job when it is due and not before, as maintenance does."""
    assert bench.store.lease_overdue(bench.clock.now, overdue_s=0) == []
    bench.clock.now += DEADLINE_S
    assert [job.job_id for job in bench.store.lease_overdue(bench.clock.now, overdue_s=0)] == [job_id]
    assert bench.poll([job_id]) == PollResult()


def test_a_voice_that_comes_after_its_deadline_is_kept_and_a_retry_pays_for_its_song_alone(
    bench: Bench, simulator: Simulator, queue: VoiceQueue
) -> None:
    """The job stays failed until it is retried, which does not poll the voice again."""
    job_id = past_its_deadline(bench, simulator)
    poll_when_late(bench, job_id)
    kept = bench.job(job_id)
    assert (kept.state, kept.persona_id is None, transitions.retry_cost(kept)) == (State.FAILED, False, 15)
    polls_before = polls_sent(simulator)

    assert queue.retry(job_id, resubmit=True).stage is Stage.MUSIC
    bench.admit()
    simulator.set_dials(music_s=0)
    bench.submit(Stage.MUSIC, [job_id])
    bench.poll_when_due([job_id])

    assert bench.job(job_id).state is State.SUCCEEDED
    assert polls_sent(simulator) == polls_before + 1
    assert [charge["kind"] for charge in simulator.ledger()["charges"]] == ["voice", "music"]
    assert charges_match(bench, simulator)


def test_a_webhook_after_the_deadline_triggers_a_poll_at_once(bench: Bench, simulator: Simulator) -> None:
    """It does not wait for the next scheduled poll."""
    job_id = past_its_deadline(bench, simulator)
    bench = replace(bench, services=replace(bench.services, clock=FarFuture()))

    assert webhooks.process_webhook(bench.store, job_id, Stage.VOICE, 1, None) is WebhookEffect.POLL
    bench.poll([job_id])

    assert bench.job(job_id).persona_id
    assert webhooks.process_webhook(bench.store, job_id, Stage.VOICE, 1, None) is WebhookEffect.NOTHING


@contextmanager
def failed_upstream(build: Build, *then: object) -> Iterator[tuple[Bench, str, PollScript]]:
    """Yield a job whose voice upstream has reported as failed twice, with its later answers."""
    script = PollScript(FAILED, FAILED, *then)
    with ScriptedServer(script) as upstream:
        bench = build(upstream.url)
        [job_id] = bench.submitted(voice())
        for _ in range(2):
            bench.poll_when_due([job_id])
        failure = bench.job(job_id).failure
        assert failure is not None
        assert failure.code is FailureCode.UPSTREAM_FAILED
        yield bench, job_id, script


def test_a_late_result_of_a_failed_task_is_kept(build: Build, queue: VoiceQueue) -> None:
    """It is polled when due; a retry then pays for the song only."""
    with failed_upstream(build, VOICE) as (bench, job_id, _):
        poll_when_late(bench, job_id)

    kept = bench.job(job_id)
    assert (kept.state, kept.persona_id, transitions.retry_cost(kept)) == (State.FAILED, "p1", 15)
    assert queue.retry(job_id).stage is Stage.MUSIC


def test_later_answers_about_a_failure_change_nothing(build: Build) -> None:
    """It is polled at growing intervals until its time is over; the answers are not written."""
    with failed_upstream(build, FAILED) as (bench, job_id, _):
        moves = len(bench.store.timeline(job_id))
        for _ in range(2):
            poll_when_late(bench, job_id)

    assert len(bench.store.timeline(job_id)) == moves
    assert bench.job(job_id).may_have_late_result


def test_a_webhook_triggers_a_poll_of_a_failed_task(build: Build) -> None:
    """The voice is ready after all, and does not wait for the next scheduled poll."""
    with failed_upstream(build, VOICE) as (bench, job_id, _):
        assert webhooks.process_webhook(bench.store, job_id, Stage.VOICE, 1, "task 1") is WebhookEffect.POLL
        replace(bench, services=replace(bench.services, clock=FarFuture())).poll([job_id])

    assert (bench.job(job_id).persona_id, bench.job(job_id).credits) == ("p1", 4)


def test_a_retry_of_a_failed_task_polls_before_it_submits(build: Build, queue: VoiceQueue) -> None:
    """It is ready by now: the job continues with its song, and the voice is not paid again."""
    with failed_upstream(build, VOICE) as (bench, job_id, script):
        assert queue.retry(job_id).state is State.PENDING
        assert bench.poll_when_due([job_id]).to_music == [job_id]

    assert (script.orders, bench.job(job_id).credits) == (1, 4)


def test_a_retry_submits_again_when_upstream_repeats_the_failure(build: Build, queue: VoiceQueue) -> None:
    """One repeated report is enough. The new order takes two reports, as always."""
    with failed_upstream(build, FAILED) as (bench, job_id, _):
        queue.retry(job_id)
        bench.poll_when_due([job_id])

        again = bench.job(job_id)
        assert (again.state, again.task_ids, again.charged_task_ids) == (State.QUEUED, {}, {1: "task 1"})
        bench.admit()
        bench.submit(Stage.VOICE, [job_id])
        bench.poll_when_due([job_id])

    assert bench.job(job_id).state is State.PENDING
    assert (bench.job(job_id).credits, bench.store.credits_spent()) == (8, 8)


def test_polls_of_a_cancelled_job_end_when_its_failure_is_final(bench: Bench, simulator: Simulator) -> None:
    """Polls end soon, so that jobs waiting for its voice do not wait for a day."""
    simulator.set_dials(voice_failure=1)
    [job_id] = bench.submitted(voice())
    cancel(bench, job_id)

    bench.poll_when_due([job_id])
    assert bench.store.timeline(job_id)[-1].reason.startswith("cancelled")
    bench.poll_when_due([job_id])

    assert "upstream reported a failure" in bench.store.timeline(job_id)[-1].reason
    assert bench.store.lease_overdue(bench.clock.now + 1e6, overdue_s=0) == []


class FarFuture:
    """A time after everything that is due."""

    def __call__(self) -> float:
        return 4e9


def test_an_order_that_was_given_up_is_counted_by_its_webhook(
    bench: Bench, simulator: Simulator, queue: VoiceQueue
) -> None:
    """Its charge is counted, the voice is kept, and a retry pays for the song only."""
    simulator.set_dials(post_faults={"cut_after": 1})
    [job_id] = bench.admitted(voice())
    bench.submit(Stage.VOICE, [job_id])
    queue.abandon(job_id)
    [charge] = simulator.ledger()["charges"]
    assert not charges_match(bench, simulator)

    hint = webhooks.process_webhook(bench.store, job_id, Stage.VOICE, 1, charge["task_id"])

    assert hint is WebhookEffect.POLL
    assert charges_match(bench, simulator)
    bench = replace(bench, services=replace(bench.services, clock=FarFuture()))
    bench.poll([job_id])
    job = bench.job(job_id)
    assert (job.state, job.persona_id is None, transitions.retry_cost(job)) == (State.FAILED, False, 15)
    assert webhooks.process_webhook(bench.store, job_id, Stage.VOICE, 1, charge["task_id"]) is WebhookEffect.NOTHING
    assert charges_match(bench, simulator)


@pytest.mark.parametrize("attempt", [0, 2])
def test_a_webhook_of_another_order_does_not_affect_the_one_given_up(
    bench: Bench, simulator: Simulator, queue: VoiceQueue, attempt: int
) -> None:
    """Only the order that was given up can be the one that was charged."""
    simulator.set_dials(post_faults={"cut_after": 1})
    [job_id] = bench.admitted(voice())
    bench.submit(Stage.VOICE, [job_id])
    queue.abandon(job_id)

    assert webhooks.process_webhook(bench.store, job_id, Stage.VOICE, attempt, "t9") is WebhookEffect.NOTHING
    assert bench.job(job_id).credits == 0


def test_a_late_result_changes_no_count(bench: Bench, simulator: Simulator) -> None:
    """Recording a late result does not change any count."""
    [job_id] = bench.submitted(voice())
    cancel(bench, job_id)
    before = bench.store.counts_by_state()

    bench.poll_when_due([job_id])

    assert bench.store.counts_by_state() == before
    job = bench.job(job_id)
    stale = Transition(job_id, job.version - 1, State.CANCELLED, Stage.VOICE, State.CANCELLED, due=1.0)
    assert bench.store.apply_transitions([stale], bench.clock.now) == [False]
