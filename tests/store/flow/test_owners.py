"""Every owner of jobs has limits of one shape: the account, a batch, a namespace and an API key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from redis import Redis

from tests.store.flow.test_limits import (
    given_up,
    lost,
    pending_voices,
    process_all,
    revived,
    sent_again,
    songs,
    submitted,
    voice_ready,
)
from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_admitted,
    claim_submit,
    enqueue_jobs,
    get_job,
)
from tests.support.jobs import voice, voice_with_song
from voicequeue import Job, Stage, State
from voicequeue.client.orders import record_charged_order
from voicequeue.domain.budgets import counters_of
from voicequeue.domain.claims import ChargedOrder, SubmitClaim
from voicequeue.domain.job import Transition
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.job_store import JobStore

DAY_S = 86_400
TODAY = int(NOW // DAY_S)

#: The owners of jobs of the namespace `shop` or the default one, enqueued with the API key `app`, in the batch `b`.
OWNERS = ("account", "namespace/shop", "namespace/", "key/app", "batch/shop/b")


@dataclass(frozen=True)
class Owner:
    """An owner, and what enqueues jobs for it."""

    name: str
    store: JobStore
    redis: Redis
    prefix: str

    @property
    def app(self) -> JobStore:
        """Return the store of its namespace."""
        return self.store.in_namespace("" if self.name == "namespace/" else "shop")

    def enqueue(self, count: int) -> list[str]:
        """Enqueue jobs of 19 credits each."""
        return songs(self.app, count, source="http:app")

    def limit(self, credits: int, period: str = "day") -> None:
        """Set the credits that it may spend: of a batch in all."""
        if self.name.startswith("batch/"):
            self.store.set_batch_limits(self.name.removeprefix("batch/"), max_credits=credits)
        else:
            limits: dict[str, Any] = {"day": None, "month": None, period: credits}
            self.store.flow_control.set_budget(self.name, **limits)

    def limit_slots(self, slots: int) -> None:
        """Set how many of its jobs may be in flight."""
        if self.name.startswith("batch/"):
            self.store.set_batch_limits(self.name.removeprefix("batch/"), max_in_flight=slots)
        else:
            self.store.flow_control.set_budget(self.name, day=None, month=None, max_in_flight=slots)

    def spent(self, day: int = TODAY) -> int:
        """Return the credits counted for it: on this day, of a batch in all."""
        field = "credits" if self.name.startswith("batch/") else f"day.{day}"
        return int(self.redis.hget(f"{{{self.prefix}}}:{counters_of(self.name)}", field) or 0)


@pytest.fixture(params=OWNERS)
def owner(request: pytest.FixtureRequest, store: JobStore, redis: Redis, prefix: str) -> Owner:
    """Return each owner."""
    return Owner(request.param, store, redis, prefix)


# ── credits ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("period", ["day", "month"])
def test_no_owner_spends_more_than_its_limit(owner: Owner, period: str) -> None:
    """Nine jobs of 19 credits with a limit of 60 spend 57; the others stay queued."""
    owner.limit(60, period)
    owner.enqueue(9)
    process_all(owner.store)
    assert owner.spent() == 57
    assert owner.store.counts_by_state()[State.QUEUED] == 6
    assert_consistent(owner.redis, owner.prefix)


@pytest.mark.parametrize("settled", [given_up, sent_again, None])
def test_lost_orders_count_until_they_are_settled(owner: Owner, settled: Callable[[Job], Transition] | None) -> None:
    """A limit of 20 credits never becomes 40: a lost order keeps its part, unsure, given up or resubmitted."""
    owner.limit(20)
    [first, *_] = owner.enqueue(9)
    owner.store.admit(NOW)
    lost(owner.store, first)
    if settled:
        assert owner.store.apply_transitions([settled(get_job(owner.store, first))], NOW) == [True]
    process_all(owner.store)
    # Upstream may have charged the lost order, and the job may have been submitted again.
    assert owner.spent() + 4 <= 20
    if settled is None:
        revived(owner.store, first)
    else:
        record_charged_order(owner.store, ChargedOrder(first, Stage.VOICE, 1, "late"), NOW, reason="webhook")
    process_all(owner.store)
    assert owner.spent() <= 20
    assert_consistent(owner.redis, owner.prefix)


def test_an_admitted_job_is_not_submitted_after_the_limit_is_lowered(owner: Owner) -> None:
    """Each limit is checked again before each order."""
    [job_id] = owner.enqueue(1)
    owner.store.admit(NOW)
    owner.limit(18)
    assert claim_submit(owner.store, job_id, Stage.VOICE, "w", NOW, lease=90) is None
    assert get_job(owner.store, job_id).state is State.QUEUED


def test_an_order_counts_for_the_day_of_its_submission(owner: Owner) -> None:
    """An order that upstream reports on the next day belongs to the day on which it was submitted."""
    [first, second] = owner.enqueue(2)
    owner.store.admit(NOW)
    lost(owner.store, first)
    claim_admitted(owner.store, second)
    accept_order(owner.store, second, NOW + DAY_S)
    revived_tomorrow(owner.store, first)
    assert owner.spent() == 8
    if not owner.name.startswith("batch/"):
        assert owner.spent(TODAY + 1) == 0
    assert_consistent(owner.redis, owner.prefix)


def revived_tomorrow(store: JobStore, job_id: str) -> None:
    """Process a webhook that reports the lost order one day later."""
    job = get_job(store, job_id)
    record_charged_order(store, ChargedOrder(job_id, job.stage, job.attempt, "t"), NOW + DAY_S, reason="webhook")


@pytest.mark.parametrize("owner", ["account", "namespace/shop"], indirect=True)
def test_a_song_counts_for_the_day_on_which_it_is_submitted(owner: Owner) -> None:
    """The voice was submitted yesterday: its song has to fit into today's limit."""
    [job_id] = pending_voices(owner.app, 1)
    voice_ready(owner.store, job_id)
    owner.limit(14)
    assert claim_submit(owner.store, job_id, Stage.MUSIC, "w", NOW + DAY_S, lease=90) is None
    owner.limit(15)
    owner.store.admit(NOW + DAY_S)
    claim_admitted(owner.store, job_id, NOW + DAY_S)
    accept_order(owner.store, job_id, NOW + DAY_S)
    assert owner.spent(TODAY + 1) == 15
    assert_consistent(owner.redis, owner.prefix)


# ── jobs in flight ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("owner", OWNERS[1:], indirect=True)
def test_no_owner_has_more_jobs_in_flight_than_its_limit(owner: Owner) -> None:
    """With a limit of two, the third job starts when the first has ended."""
    owner.limit_slots(2)
    first, *_ = owner.enqueue(5)
    assert len(submitted(owner.store)) == 2
    assert not submitted(owner.store)
    apply_transition(owner.store, accept_order(owner.store, first), State.SUCCEEDED)
    assert len(submitted(owner.store)) == 1
    assert_consistent(owner.redis, owner.prefix)


def test_the_account_has_no_limit_of_jobs_in_flight_besides_the_limits(store: JobStore) -> None:
    """One place sets it: `voicequeue limits`."""
    with pytest.raises(ValueError, match="voicequeue limits"):
        store.flow_control.set_budget("account", day=None, month=None, max_in_flight=1)


# ── one owner waits, the others go on ─────────────────────────────────────────────────────────────


def test_a_key_at_its_limit_does_not_stop_another_in_the_same_batch(store: JobStore) -> None:
    """The jobs of `app` are first in the lane and wait; those of `web` start."""
    store.flow_control.set_budget("key/app", day=20, month=None)
    songs(store, 200, source="http:app")
    songs(store, 3, source="http:web")
    process_all(store)
    succeeded = store.get(list(store.list_ids(state=State.SUCCEEDED)))
    assert sorted(job.source or "" for job in succeeded if job) == ["http:app", *["http:web"] * 3]


def test_a_cheaper_job_of_a_key_starts_if_it_fits(store: JobStore) -> None:
    """Four credits are left for a voice, although the song before it does not fit."""
    store.flow_control.set_budget("key/app", day=10, month=None)
    songs(store, 3, source="http:app")
    [cheap] = enqueue_jobs(store, voice(key="cheap", batch="b"), source="http:app")
    assert submitted(store) == [cheap]


def test_a_shared_voice_is_not_kept_by_a_key_at_its_limit(store: JobStore) -> None:
    """The creator of the voice waits for its key's budget: a job of another key creates it instead."""
    store.flow_control.set_budget("key/app", day=3, month=None)
    [creator] = enqueue_jobs(store, voice_with_song(key="1", reuse=True), source="http:app")
    [other] = enqueue_jobs(store, voice_with_song(key="2", reuse=True), source="http:web")
    assert [get_job(store, job_id).state for job_id in (creator, other)] == [State.WAITING, State.QUEUED]
    assert submitted(store) == [other]


# ── removed jobs ──────────────────────────────────────────────────────────────────────────────────


def test_what_purged_jobs_spent_stays_counted(owner: Owner) -> None:
    """The audit knows it of every day; a lost order counts without its job, too."""
    owner.limit(60)
    [first, *_] = owner.enqueue(3)
    owner.store.admit(NOW)
    lost(owner.store, first)
    assert owner.store.apply_transitions([given_up(get_job(owner.store, first))], NOW) == [True]
    process_all(owner.store)
    list(owner.store.purge(NOW + 60, retention_s=30))
    assert owner.spent() == 38
    assert audit(owner.redis, owner.prefix) == []
    assert_consistent(owner.redis, owner.prefix)
    owner.enqueue(1)
    assert submitted(owner.store) == []
    owner.limit(61)
    assert len(submitted(owner.store)) == 1


def test_orders_are_claimed_within_all_limits_at_once(store: JobStore) -> None:
    """The smallest limit of all owners counts."""
    limit = partial(store.flow_control.set_budget, month=None)
    limit("account", day=100)
    limit("namespace/", day=80)
    limit("key/app", day=60)
    store.set_batch_limits("b", max_credits=40)
    job_ids = songs(store, 9, source="http:app")
    store.admit(NOW)
    claims = store.claim_submit(job_ids, Stage.VOICE, "w", NOW, lease_s=90)
    assert sum(isinstance(claim, SubmitClaim) for claim in claims) == 2
