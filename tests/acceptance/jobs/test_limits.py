"""Money and its limits with a real worker: lost orders, a pause, and a cancelling while orders are under way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import Build, House, jobs
from tests.acceptance.jobs.test_pipeline import run
from tests.conftest import eventually
from voicequeue import Filter, Stage, State, VoiceQueue


@pytest.fixture(scope="module")
def house(build_for_all: Build) -> House:
    """One worker that asks for the account's credits all the time."""
    return build_for_all(workers=1, VOICEQUEUE_CREDITS_EVERY_S="0.3", VOICEQUEUE_LATE_S="60")


@pytest.fixture
def queue(house: House) -> Iterator[VoiceQueue]:
    """The jobs of that house, whose simulator is as at first."""
    house.renew()
    with house.queue() as found:
        yield found


def others_go_on(house: House, queue: VoiceQueue, batch: str) -> None:
    """Jobs of another batch are finished from beginning to end: so the worker had all the time that it needs."""
    queue.enqueue_many(jobs(3, batch))
    eventually(lambda: queue.batch(batch).states[State.SUCCEEDED] == 3, within_s=30)


def stages(queue: VoiceQueue, batch: str) -> Counter[Stage]:
    """How many orders of each stage were sent for a batch."""
    return Counter(
        step.stage for job in queue.jobs(batch=batch) for step in queue.timeline(job.id) if step.state is State.CHARGING
    )


def lost_orders(house: House, queue: VoiceQueue, batch: str, count: int) -> None:
    """Jobs of a batch whose orders are charged and whose answers are lost."""
    house.dial(post_faults={"reset_after": 1})
    queue.enqueue_many(jobs(count, batch))
    eventually(lambda: queue.batch(batch).states[State.UNSURE] > 0)
    eventually(lambda: queue.batch(batch).states[State.CHARGING] == 0)
    house.dial(post_faults={})


def revived(house: House, queue: VoiceQueue, batch: str) -> None:
    """Somebody names the tasks of lost orders, as webhooks do."""
    tasks = {charge["subject"]: charge["task_id"] for charge in house.ledger()["charges"]}
    for job in list(queue.jobs(state=State.UNSURE, batch=batch)):
        queue.take_up(job.id, tasks[str(job.spec.audio_url)])


def test_a_batch_never_spends_more_than_it_may_whatever_was_lost(house: House, queue: VoiceQueue) -> None:
    """With 40 credits two jobs are begun and made, although both answers were lost; eight wait unharmed."""
    queue.limit_batch("lost", max_credits=40)
    lost_orders(house, queue, "lost", 10)
    others_go_on(house, queue, "lost-others")
    assert queue.batch("lost").states[State.UNSURE] == 2

    revived(house, queue, "lost")
    eventually(lambda: queue.batch("lost").states[State.SUCCEEDED] == 2, within_s=30)
    others_go_on(house, queue, "lost-others-too")

    assert queue.batch("lost").credits == 38
    assert queue.batch("lost").states[State.QUEUED] == 8
    assert house.ledger()["credits_spent"] == 38 + 2 * 3 * 19


def test_a_pause_and_lower_credits_hold_for_the_songs_of_voices_under_way(house: House, queue: VoiceQueue) -> None:
    """Of 8 voices none gets its song while the batch is paused, two with credits for two."""
    house.dial(voice_s=1.5)
    queue.enqueue_many(jobs(8, "paused"))
    eventually(lambda: queue.batch("paused").states[State.PENDING] == 8)
    queue.pause(batch="paused")
    eventually(lambda: queue.batch("paused").states[State.QUEUED] == 8, within_s=30)
    house.dial(voice_s=0.5)
    others_go_on(house, queue, "paused-others")
    assert stages(queue, "paused") == {Stage.VOICE: 8}

    queue.limit_batch("paused", max_credits=32 + 2 * 15, paused=False)
    eventually(lambda: queue.batch("paused").states[State.SUCCEEDED] == 2, within_s=30)
    others_go_on(house, queue, "paused-others-too")

    assert queue.batch("paused").credits == 62
    assert stages(queue, "paused") == {Stage.VOICE: 8, Stage.MUSIC: 2}


def test_a_batch_that_is_cancelled_orders_no_song_for_what_was_under_way(house: House, queue: VoiceQueue) -> None:
    """Jobs that are charging or unsure at that moment are told of; what they paid for is kept."""
    lost_orders(house, queue, "gone", 4)
    house.dial(latency_s=2)
    queue.enqueue_many(jobs(7, "gone")[4:])
    eventually(lambda: queue.batch("gone").states[State.CHARGING] == 3)

    done = queue.carry_out("cancel", queue.plan("cancel", Filter(batch="gone")).token)
    house.dial(latency_s=0)

    assert (done.found, done.changed, done.marked) == (7, 0, 7)
    revived(house, queue, "gone")
    eventually(lambda: queue.batch("gone").states[State.CANCELLED] == 7)
    eventually(lambda: all(job.persona_id for job in queue.jobs(batch="gone")), within_s=30)
    assert stages(queue, "gone") == {Stage.VOICE: 7}
    assert queue.batch("gone").credits == house.ledger()["credits_spent"] == 7 * 4


def test_a_voice_that_costs_more_is_told(house: House, queue: VoiceQueue) -> None:
    """By the log, once, and by the status."""
    house.dial(voice_credits=20)
    others_go_on(house, queue, "dear")

    eventually(lambda: queue.status().account.drift is not None)

    assert "another user of the account, or a changed price" in run(house, "status").stdout
    eventually(lambda: "another user of the account, or a changed price" in house.logs())
