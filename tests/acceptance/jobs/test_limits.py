"""Credit limits with a real worker: lost answers, a pause, and a cancellation with orders in flight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import Build, System, jobs
from tests.conftest import eventually
from voicequeue import Filter, Stage, State, VoiceQueue
from voicequeue.domain.stage import PRICES
from voicequeue.domain.states import IN_FLIGHT
from voicequeue.domain.stop_loss import STOP_MIN


@pytest.fixture(scope="module")
def system(build_shared: Build) -> System:
    """Start one worker that checks the balance all the time."""
    return build_shared(workers=1, VOICEQUEUE_BALANCE_INTERVAL_S="0.3", VOICEQUEUE_LATE_RESULT_TTL_S="60")


@pytest.fixture
def queue(system: System) -> Iterator[VoiceQueue]:
    """Yield the system's queue, with the simulator reset."""
    system.reset()
    with system.queue() as queue:
        yield queue


def finish_other_jobs(system: System, queue: VoiceQueue, batch: str) -> None:
    """Finish jobs of another batch, so that the worker has had enough time for the tested one."""
    queue.enqueue_many(jobs(3, batch))
    eventually(lambda: queue.batch(batch).states[State.SUCCEEDED] == 3, within_s=30)


def stages(queue: VoiceQueue, batch: str) -> Counter[Stage]:
    """Return how many orders of each stage were sent for a batch."""
    return Counter(
        step.stage for job in queue.jobs(batch=batch) for step in queue.timeline(job.id) if step.state is State.CHARGING
    )


def lose_answers(system: System, queue: VoiceQueue, batch: str, count: int) -> None:
    """Enqueue jobs whose orders are charged and whose answers are lost."""
    system.dial(post_faults={"reset_after": 1})
    queue.enqueue_many(jobs(count, batch))
    eventually(lambda: queue.batch(batch).states[State.UNSURE] > 0)
    eventually(lambda: queue.batch(batch).states[State.CHARGING] == 0)
    system.dial(post_faults={})


def confirm_lost_orders(system: System, queue: VoiceQueue, batch: str) -> None:
    """Name the tasks of lost orders, as webhooks do."""
    tasks = {charge["subject"]: charge["task_id"] for charge in system.ledger()["charges"]}
    for job in list(queue.jobs(state=State.UNSURE, batch=batch)):
        queue.confirm_charged(job.id, tasks[str(job.spec.audio_url)])


def test_a_batch_never_spends_more_than_it_may_whatever_was_lost(system: System, queue: VoiceQueue) -> None:
    """With 40 credits two jobs start and are finished, although both answers were lost; eight wait."""
    queue.set_batch_limits("lost", max_credits=40)
    lose_answers(system, queue, "lost", 10)
    finish_other_jobs(system, queue, "lost-others")
    assert queue.batch("lost").states[State.UNSURE] == 2

    confirm_lost_orders(system, queue, "lost")
    eventually(lambda: queue.batch("lost").states[State.SUCCEEDED] == 2, within_s=30)
    finish_other_jobs(system, queue, "lost-others-too")

    assert queue.batch("lost").credits == 38
    assert queue.batch("lost").states[State.QUEUED] == 8
    assert system.ledger()["credits_spent"] == 38 + 2 * 3 * 19


def test_a_pause_and_lower_credits_apply_to_the_songs_of_voices_in_progress(system: System, queue: VoiceQueue) -> None:
    """Of 8 voices none gets its song while the batch is paused, and two do with credits for two."""
    system.dial(voice_s=1.5)
    queue.enqueue_many(jobs(8, "paused"))
    eventually(lambda: queue.batch("paused").states[State.PENDING] == 8)
    queue.pause(batch="paused")
    eventually(lambda: queue.batch("paused").states[State.QUEUED] == 8, within_s=30)
    system.dial(voice_s=0.5)
    finish_other_jobs(system, queue, "paused-others")
    assert stages(queue, "paused") == {Stage.VOICE: 8}

    queue.set_batch_limits("paused", max_credits=32 + 2 * 15, paused=False)
    eventually(lambda: queue.batch("paused").states[State.SUCCEEDED] == 2, within_s=30)
    finish_other_jobs(system, queue, "paused-others-too")

    assert queue.batch("paused").credits == 62
    assert stages(queue, "paused") == {Stage.VOICE: 8, Stage.MUSIC: 2}


def test_a_batch_that_fails_upstream_stops_before_it_costs_much(system: System, queue: VoiceQueue) -> None:
    """Of 300 jobs of which 95 % fail, the sample and those in flight are paid; other batches continue."""
    in_flight, most = 20, (STOP_MIN + 20) * sum(PRICES.values())
    queue.set_batch_limits("bad", stop_after=0.2, max_in_flight=in_flight)
    system.dial(voice_failure=0.95, seed=4)
    queue.enqueue_many(jobs(300, "bad"))

    eventually(lambda: queue.batch("bad").stop is not None, within_s=30)
    eventually(lambda: not any(queue.batch("bad").states[state] for state in IN_FLIGHT), within_s=30)
    system.dial(voice_failure=0, seed=None)
    finish_other_jobs(system, queue, "good")

    batch = queue.batch("bad")
    assert batch.stop is not None
    assert 0 < batch.credits == system.ledger()["credits_spent"] - 3 * 19 <= most
    assert batch.states[State.QUEUED] + sum(batch.failures.values()) + batch.states[State.SUCCEEDED] == 300
    assert batch.failures.keys() == {"upstream_failed"}
    eventually(lambda: "batch stopped" in system.logs())


def test_a_cancelled_batch_orders_no_song_for_voices_in_progress(system: System, queue: VoiceQueue) -> None:
    """Jobs that are charging or unsure at that moment are marked; their paid results are kept."""
    lose_answers(system, queue, "gone", 4)
    system.dial(latency_s=2)
    queue.enqueue_many(jobs(7, "gone")[4:])
    eventually(lambda: queue.batch("gone").states[State.CHARGING] == 3)

    cancelled = queue.execute_plan("cancel", queue.plan_bulk("cancel", Filter(batch="gone")).token)
    system.dial(latency_s=0)

    assert (cancelled.count, cancelled.changed, cancelled.cancelling) == (7, 0, 7)
    confirm_lost_orders(system, queue, "gone")
    eventually(lambda: queue.batch("gone").states[State.CANCELLED] == 7)
    eventually(lambda: all(job.persona_id for job in queue.jobs(batch="gone")), within_s=30)
    assert stages(queue, "gone") == {Stage.VOICE: 7}
    assert queue.batch("gone").credits == system.ledger()["credits_spent"] == 7 * 4


def test_a_changed_price_is_reported(system: System, queue: VoiceQueue) -> None:
    """The log and the status report it, the log once."""
    system.dial(voice_credits=20)
    finish_other_jobs(system, queue, "dear")

    eventually(lambda: queue.status().account.uncounted is not None)

    assert "another user of the account, or a changed price" in system.run("status").stdout
    eventually(lambda: "another user of the account, or a changed price" in system.logs())
