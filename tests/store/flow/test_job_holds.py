"""A queued job says why it is not submitted: which limit, whose, and until when, as admission decides it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from tests.store.flow.test_limits import lost, process_all, songs
from tests.store.life import NOW, claim_admitted, enqueue_jobs, refuse_order
from tests.support.jobs import voice, voice_with_song
from voicequeue import JobHold, JobNotFoundError, Priority, VoiceQueue
from voicequeue.client.queue import in_namespace
from voicequeue.domain.budgets import period_ends
from voicequeue.domain.job_holds import count_by_hold
from voicequeue.storage.job_store import JobStore

#: Changes that hold every job of the batch `b` (19 credits each), with the holds that follow.
HOLDS: dict[str, tuple[Callable[[JobStore], object], list[tuple[str, str, str | None]]]] = {
    "nothing": (lambda _: None, []),
    "a paused batch": (
        lambda store: store.set_batch_limits("b", paused=True),
        [("batch_paused", "batch/b", None)],
    ),
    "the credit limit of a batch": (
        lambda store: store.set_batch_limits("b", max_credits=18),
        [("batch_credits", "batch/b", None)],
    ),
    "the budget of a day": (
        lambda store: spend(store, day=30),
        [("budget_day", "account", "day")],
    ),
    "the budgets of a day and a month": (
        lambda store: spend(store, day=30, month=30),
        [("budget_day", "account", "day"), ("budget_month", "account", "month")],
    ),
    "a budget below the price": (
        lambda store: spend(store, day=18),
        [("budget_day", "account", None)],
    ),
}


def spend(store: JobStore, *, day: int | None = None, month: int | None = None) -> None:
    """Set the budget of the account, and spend 19 credits of it with another batch if it allows that."""
    store.flow_control.set_budget("account", day=day, month=month)
    songs(store, 1, "first")
    process_all(store)


def holds_of(store: JobStore, job_id: str, now: float = NOW) -> list[JobHold]:
    """Return the holds of one job."""
    [holds] = store.job_holds([job_id], now)
    return holds


@pytest.mark.parametrize("name", HOLDS)
def test_a_queued_job_says_what_holds_it_and_until_when(store: JobStore, name: str) -> None:
    """Each limit that holds it is named; the end is that of the period, or unknown if the next period does not help."""
    change, expected = HOLDS[name]
    change(store)
    [job_id] = songs(store, 1)

    ends = period_ends(NOW)
    assert holds_of(store, job_id) == [
        JobHold(reason, owner, None if period is None else ends[period]) for reason, owner, period in expected
    ]


@pytest.mark.parametrize("name", HOLDS)
def test_exactly_the_jobs_without_holds_are_admitted(store: JobStore, name: str) -> None:
    """What is shown and what is decided cannot differ: both are the same script code."""
    HOLDS[name][0](store)
    [job_id] = songs(store, 1)

    is_held = bool(holds_of(store, job_id))
    assert (job_id not in [id_ for ids in store.admit(NOW).by_stage.values() for id_ in ids]) is is_held


def test_a_hold_ends_with_its_limit(store: JobStore) -> None:
    """A raised budget, and the next day, end the hold: it is computed when it is read."""
    spend(store, day=30)
    [job_id] = songs(store, 1)
    [hold] = holds_of(store, job_id)
    assert hold.until is not None
    assert holds_of(store, job_id, hold.until) == []
    store.flow_control.set_budget("account", day=38, month=None)
    assert holds_of(store, job_id) == []


def test_unsure_orders_that_use_up_a_budget_have_no_known_end(store: JobStore) -> None:
    """The next day does not help while an order is unsure: an operator has to resolve it."""
    store.flow_control.set_budget("account", day=30, month=None)
    first, second = songs(store, 2)
    store.admit(NOW)
    lost(store, first)
    assert holds_of(store, second) == [JobHold("budget_day", "account", None)]


def test_a_namespace_learns_whose_budget_holds_its_jobs_and_nothing_else(queue: VoiceQueue, store: JobStore) -> None:
    """The account's budget is named without figures; the batch without the namespace; foreign jobs do not exist."""
    shop, news = store.in_namespace("shop"), store.in_namespace("news")
    store.flow_control.set_budget("account", day=37, month=None)
    songs(news, 1)
    process_all(store)
    [job_id] = songs(shop, 1)
    shop.set_batch_limits("b", paused=True)
    [of_batch, of_account] = holds_of(shop, job_id)
    assert (of_batch.owner, of_account.owner) == ("batch/b", "account")
    assert "37" not in of_account.detail
    assert holds_of(store, job_id)[0].owner == "batch/shop/b"
    with pytest.raises(JobNotFoundError):
        in_namespace(queue, "news").job_holds(job_id)


def test_a_refused_job_says_when_its_order_is_sent_again(store: JobStore) -> None:
    """The hold names the job itself, and ends with its rest."""
    job_id, _ = songs(store, 2)
    store.admit(NOW)
    claim_admitted(store, job_id)
    refuse_order(store, job_id, "cooldown", hold_s=30)
    assert holds_of(store, job_id)[0].reason == "refused"
    assert holds_of(store, job_id, NOW + 3600) == []


def test_the_client_adds_the_gate_and_the_creator_of_a_voice(queue: VoiceQueue) -> None:
    """A paused stage holds the jobs of that stage; a waiting job names the job that creates its voice."""
    first, second = (queue.enqueue(voice_with_song(key=key, reuse=True)).id for key in ("one", "two"))
    queue.pause(stage="voice")
    assert queue.job_holds(first) == [JobHold("paused.voice", "gate")]
    assert queue.job_holds(second) == [JobHold("voice", f"job/{first}")]
    queue.resume()
    queue.pause(stage="music")
    assert queue.job_holds(first) == []


def test_the_status_counts_the_jobs_that_each_limit_holds(queue: VoiceQueue, store: JobStore) -> None:
    """Lanes with the same hold are counted together, the most jobs first."""
    songs(store, 2, "a")
    songs(store, 3, "b")
    enqueue_jobs(store, voice(batch="b", priority=Priority.HIGH))
    songs(store.in_namespace("shop"), 1, "c")
    for batch in ("a", "b", "shop/c"):
        store.set_batch_limits(batch, paused=True)
    counts = [(entry.hold.owner, entry.jobs) for entry in queue.status().backlog_holds]
    assert counts == [("batch/b", 4), ("batch/a", 2), ("batch/shop/c", 1)]
    assert [entry.jobs for entry in queue.status("a").backlog_holds] == [2]


def test_a_hold_that_others_pass_counts_no_other_job(store: JobStore) -> None:
    """A refused job at the head of its lane does not hold those behind it."""
    job_id, _ = songs(store, 2)
    store.admit(NOW)
    claim_admitted(store, job_id)
    refuse_order(store, job_id, "cooldown", hold_s=30)
    [lane] = store.lanes()
    holds = store.job_holds([lane.head_id], NOW)
    assert [(entry.hold.reason, entry.jobs) for entry in count_by_hold(holds, [5])] == [("refused", 1)]


def test_reading_holds_changes_nothing(store: JobStore, redis: Redis, prefix: str) -> None:
    """Reading must be possible at any time, as often as a page is loaded."""
    spend(store, day=30)
    [job_id] = songs(store, 1)
    before = {key: redis.dump(key) for key in redis.scan_iter(f"{{{prefix}}}:*")}
    holds_of(store, job_id)
    assert {key: redis.dump(key) for key in redis.scan_iter(f"{{{prefix}}}:*")} == before
