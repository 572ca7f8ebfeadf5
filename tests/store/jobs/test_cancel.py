"""Cancelling a job whose order is on its way, or was lost: nothing more is ordered, and what was paid is kept."""

from __future__ import annotations

import re
from typing import Any

import pytest
from redis import Redis

from tests.store.conftest import Command
from tests.store.life import (
    NOW,
    accepted,
    brought_to,
    charging,
    everything_agrees,
    failed,
    make,
    move,
    named,
    one,
    put,
    slowed,
)
from tests.support.jobs import sung
from tests.support.losing import losing_way
from voicequeue import Code, Job, NotAllowed, Stage, State, VoiceQueue
from voicequeue.client import cancelling
from voicequeue.client.search import Filter
from voicequeue.domain import transitions
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import Store

UNDER_WAY = [State.CHARGING, State.UNSURE]


@pytest.fixture(autouse=True)
def _agreed(redis: Redis, prefix: str, store: Store) -> object:
    yield
    everything_agrees(redis, prefix)


def marked(store: Store, state: State, **fields: Any) -> Job:
    """A job whose cancelling is asked for while it is charging or unsure."""
    job = brought_to(store, state, sung(**fields))
    [found] = cancelling.cancel(store, [job], NOW)
    assert (found.state, found.version, found.cancelling) == (state, job.version, True)
    return found


@pytest.mark.parametrize("state", UNDER_WAY)
def test_a_job_that_is_marked_is_cancelled_when_upstream_took_its_order(store: Store, state: State) -> None:
    """It is charged and counted, its task is kept and asked about; its song is not ordered."""
    job = marked(store, state)

    taken = named(job, "t-1")
    assert store.apply([taken], NOW) == [True]

    cancelled = one(store, job.id)
    assert (cancelled.state, cancelled.credits, cancelled.task_ids) == (State.CANCELLED, 4, {Stage.VOICE: "t-1"})
    assert (cancelled.settled_at, cancelled.cancelling, cancelled.may_still_come) == (NOW, False, True)
    assert "upstream accepted the order" in store.timeline(job.id)[-1].reason
    assert [claim.state for claim in store.claim([job.id], Stage.VOICE, NOW, lease=9)] == [State.CANCELLED]
    kept = move(cancelled, State.CANCELLED, fields={"persona_id": "p-late"})
    assert store.apply([kept], NOW) == [True]
    assert one(store, job.id).persona_id == "p-late"
    assert store.admit(NOW).by_stage == {}
    assert store.controls.account().committed == 0


@pytest.mark.parametrize("to", [State.QUEUED, State.ADMITTED])
def test_a_job_that_is_marked_is_cancelled_when_its_order_was_not_charged(store: Store, to: State) -> None:
    """Nothing is asked about, and nothing is sent again."""
    job = marked(store, State.CHARGING)

    make(store, job, to, reason="slow down")

    cancelled = one(store, job.id)
    assert (cancelled.state, cancelled.credits, cancelled.may_still_come) == (State.CANCELLED, 0, False)
    assert store.in_flight() == 0
    assert store.overdue(NOW + 1e6, patience=0) == []
    assert store.admit(NOW).by_stage == {}


def test_a_job_that_is_marked_and_whose_answer_is_lost_waits_for_it_as_ever(store: Store) -> None:
    """It may have been charged: that is settled first. An answer that comes late cancels it."""
    job = marked(store, State.CHARGING)

    unsure = make(store, job, State.UNSURE, reason="no answer")
    assert unsure.cancelling
    make(store, unsure, State.ADMITTED, reason="the answer came late")

    assert one(store, job.id).state is State.CANCELLED


def test_a_job_that_is_marked_and_refused_has_failed(store: Store) -> None:
    """With upstream's words; and a retry is one of a failed job like any other."""
    job = failed(store, marked(store, State.CHARGING), Code.REFUSED)
    assert (job.state, job.cancelling) == (State.FAILED, False)

    store.apply([transitions.retry(job, NOW)], NOW)

    assert one(store, job.id).state is State.QUEUED
    store.admit(NOW)
    assert charging(store, job.id).attempt == 2


def test_what_upstream_says_of_a_marked_job_holds_for_the_others(store: Store, redis: Redis, prefix: str) -> None:
    """Orders are slowed down although the job that it was said to is cancelled, and nothing of its refusal stays."""
    first, second = (brought_to(store, State.CHARGING, sung(key=key)) for key in "ab")
    cancelling.cancel(store, [first, second], NOW)

    for job in (first, second):
        slowed(store, job.id)
        assert one(store, job.id).state is State.CANCELLED

    assert store.controls.gate(NOW).closed_for("cooldown")
    assert store.controls.refused() == []
    assert redis.exists(f"{{{prefix}}}:refused") == 0


def test_a_job_that_is_marked_is_not_ordered_again(store: Store, queue: VoiceQueue) -> None:
    """Not even by a decision that was made before; given up, it can be retried."""
    unsure = brought_to(store, State.UNSURE)
    decided_before = transitions.order_again(unsure, NOW)
    cancelling.cancel(store, [unsure], NOW)

    with pytest.raises(NotAllowed, match=f"job {unsure.id} is being cancelled and cannot be resubmitted"):
        queue.order_again(unsure.id)
    assert store.apply([decided_before], NOW) == [False]

    assert queue.abandon(unsure.id).state is State.FAILED
    assert queue.retry(unsure.id).state is State.QUEUED


def test_a_mark_changes_no_version_so_that_the_answer_is_still_written(store: Store, queue: VoiceQueue) -> None:
    """Asking twice is asking once; an event tells of it, for whoever follows the job."""
    job = brought_to(store, State.CHARGING, sung(batch="b"))
    before = queue.last_event()

    assert [queue.cancel(job.id) for _ in range(2)] == [one(store, job.id)] * 2

    assert one(store, job.id).version == job.version
    [event] = queue.events(before)
    assert (event.job_id, event.state, event.reason) == (job.id, State.CHARGING, "cancellation requested")


def test_only_the_order_that_is_under_way_stays_promised(store: Store) -> None:
    """The song of a job that is to be cancelled is never ordered: its credits are free for others at once."""
    for state in UNDER_WAY:
        marked(store, state, key=state, batch="b")

    assert store.controls.account().committed == 2 * 4
    batch = store.batch("b")
    assert batch is not None
    assert batch.committed == 2 * 4


def test_a_move_that_became_a_cancelling_is_told_as_made_though_the_answer_was_lost(
    store: Store, valkey_url: str, prefix: str
) -> None:
    """Upstream took the order: that is written once, and known to be."""
    job = marked(store, State.CHARGING)
    with losing_way(valkey_url) as way:
        client = connect(way.url)
        way.lose_the_answer_to("EVALSHA")

        assert Store(client, prefix).apply([named(job, "t-1")], NOW) == [True]

        client.close()
    assert one(store, job.id).credits == 4


# ── voices that are shared ────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=UNDER_WAY)
def waiting(store: Store, request: pytest.FixtureRequest) -> tuple[Job, str]:
    """A marked job that makes a voice, and the id of one that waits for it."""
    maker, other = put(store, *(sung(key=key, reuse=True) for key in ("maker", "other")))
    store.admit(NOW)
    charging(store, maker)
    if request.param is State.UNSURE:
        make(store, one(store, maker), State.UNSURE)
    [job] = cancelling.cancel(store, [one(store, maker)], NOW)
    assert one(store, other).state is State.WAITING
    return job, other


def test_who_waits_for_the_voice_of_a_marked_job_gets_it_where_it_was_paid(
    store: Store, waiting: tuple[Job, str]
) -> None:
    """As of one that is cancelled while upstream works on it."""
    maker, other = waiting
    store.apply([named(maker, "t")], NOW)
    assert one(store, other).state is State.WAITING

    make(store, one(store, maker.id), State.CANCELLED, fields={"persona_id": "p-late"})

    assert (one(store, other).state, one(store, other).persona_id) == (State.QUEUED, "p-late")


@pytest.mark.parametrize("way", ["not charged", "given up"])
def test_who_waits_for_the_voice_of_a_marked_job_makes_it_where_nothing_comes(
    store: Store, waiting: tuple[Job, str], way: str
) -> None:
    """One customer's change of mind is not another's."""
    maker, other = waiting
    if way == "given up":
        unsure = maker if maker.state is State.UNSURE else make(store, maker, State.UNSURE)
        store.apply([transitions.abandon(unsure, NOW)], NOW)
    else:
        make(store, maker, State.ADMITTED, reason="not charged")

    assert (one(store, other).state, one(store, other).stage) == (State.QUEUED, Stage.VOICE)


# ── many at once ──────────────────────────────────────────────────────────────────────────────────


def under_way(store: Store) -> list[str]:
    """A batch of 20: 9 that can be cancelled at once, 6 that are charging, 5 that are unsure."""
    job_ids = put(store, *(sung(key=f"{number}", batch="b") for number in range(20)))
    store.admit(NOW, at_most=15)
    for number, job_id in enumerate(job_ids[:11]):
        charging(store, job_id)
        if number % 2:
            make(store, one(store, job_id), State.UNSURE)
    return job_ids


def test_a_batch_is_cancelled_with_what_is_under_way(command: Command, store: Store) -> None:
    """So many are cancelled, so many are marked and why; whatever becomes of their orders, no song is ordered."""
    job_ids = under_way(store)

    dry = command("cancel", "--batch", "b", "--dry-run")
    ended = command("cancel", "--batch", "b", "--yes")

    assert "11 are charging or unsure; no further stage is submitted for them" in dry.out
    assert ended.code == 0
    assert "20 unsettled jobs found, 9 cancelled; upstream works on 0 paid orders" in ended.out
    assert "11 are charging or unsure; no further stage is submitted for them" in ended.out
    for job_id in job_ids[:11]:
        store.apply([named(one(store, job_id), "t")], NOW)
        make(store, one(store, job_id), State.CANCELLED, fields={"persona_id": f"p-{job_id}"})
    assert store.admit(NOW).by_stage == {}
    assert store.credits("b") == 11 * 4
    assert store.counts("b")[State.CANCELLED] == 20
    assert command("cancel", "--batch", "b", "--yes", "--json").json() == {
        "found": 0,
        "cancelled": 0,
        "marked": 0,
        "paid": 0,
    }


def test_many_are_cancelled_wherever_they_are_by_now(store: Store, queue: VoiceQueue) -> None:
    """A job that moved on since it was read would else order its song."""
    [a, b, c, d] = put(store, *(sung(key=key, batch="b") for key in "abcd"))
    store.admit(NOW, at_most=3)
    plan = queue.plan("cancel", Filter(batch="b"))
    charging(store, a)
    charging(store, b)
    accepted(store, b)
    failed(store, one(store, c), Code.EXPIRED)

    queue.carry_out("cancel", plan.token)

    jobs = [queue.get(job_id) for job_id in (a, b, c, d)]
    assert [(job.state, job.cancelling) for job in jobs] == [
        (State.CHARGING, True),
        (State.CANCELLED, False),
        (State.FAILED, False),
        (State.CANCELLED, False),
    ]


def test_a_plan_tells_of_those_that_are_under_way_and_marks_them(store: Store, queue: VoiceQueue) -> None:
    """Those that are over by then are left alone; a second time does no harm."""
    job_ids = under_way(store)
    plan = queue.plan("cancel", Filter(batch="b"))
    assert (plan.found, plan.paid, plan.under_way) == (20, 0, 11)
    accepted(store, job_ids[0])
    make(store, one(store, job_ids[-1]), State.CANCELLED)

    first, second = (queue.carry_out("cancel", plan.token) for _ in range(2))

    assert (first.found, first.changed, first.marked, first.moved_on) == (20, 9, 10, 1)
    assert (second.changed, second.marked, second.moved_on) == (0, 0, 20)
    assert queue.plan("cancel", Filter(batch="b")).found == 0


def test_a_single_job_that_is_marked_says_so(command: Command, store: Store) -> None:
    """With what is known of its order; so does `job`, in both shapes."""
    for state, why in ((State.CHARGING, "is being submitted"), (State.UNSURE, "may have been charged")):
        job = brought_to(store, state, sung(key=state))
        ended = command("cancel", job.id)

        assert ended.code == 0
        assert re.search(f"order {why}.*: cancelled as soon as the outcome is known; no further stage", ended.err)
        assert "to be cancelled" in ended.out
        assert command("job", job.id, "--json").json()["cancelling"] is True
        assert "to be cancelled" in command("jobs").out
