"""The adaptive limit of jobs in flight, and limits set at run time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from redis import Redis

from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    claim_admitted,
    claim_submit,
    enqueue_jobs,
    get_job,
    rate_limit_order,
)
from tests.support.jobs import numbered_voices, voice
from voicequeue import Stage, State
from voicequeue.domain.claims import SubmitClaim, SubmitDeferred
from voicequeue.domain.gate import SUBMIT_RATE_MIN, HoldEffect, Limits
from voicequeue.storage.flow_control import InFlightLimit
from voicequeue.storage.job_store import JobStore

Build = Callable[..., JobStore]


@pytest.fixture
def build(redis: Redis, prefix: str) -> Build:
    """Return a factory of stores of this test's jobs, with given limits."""
    return lambda **limits: JobStore(redis, prefix, limits=Limits(**limits))


def order(store: JobStore, now: float = NOW) -> list[str]:
    """Admit jobs and let upstream accept each order."""
    job_ids = [job_id for stage in store.admit(now).by_stage.values() for job_id in stage]
    for job_id in job_ids:
        claim_admitted(store, job_id, now)
        accept_order(store, job_id, now)
    return job_ids


def finish(store: JobStore, job_ids: list[str]) -> None:
    """Complete the jobs."""
    for job_id in job_ids:
        apply_transition(store, get_job(store, job_id), State.SUCCEEDED)


def submit_more(store: JobStore, count: int, now: float = NOW) -> list[str]:
    """Submit that many more orders, regardless of the limit."""
    job_ids = enqueue_jobs(store, *(voice(key=f"submit_more-{now}-{number}") for number in range(count)))
    for job_id in job_ids:
        apply_transition(store, get_job(store, job_id), State.ADMITTED, now)
        claim_admitted(store, job_id, now)
    return job_ids


def rate_limit(store: JobStore, now: float = NOW, **waits: float) -> None:
    """Upstream rate-limits two orders."""
    for job_id in submit_more(store, 2, now):
        rate_limit_order(store, job_id, now, **waits)


def grow_to(store: JobStore, limit: int) -> None:
    """Let upstream accept orders until the limit is reached."""
    for _ in range(500):
        if store.flow_control.in_flight_limit().limit >= limit:
            return
        if job_ids := order(store):
            finish(store, job_ids[: len(job_ids) // 2])
        else:
            finish(store, list(store.list_ids(state=State.PENDING)))
    pytest.fail("the limit does not grow")


# ── the adaptive limit ────────────────────────────────────────────────────────────────────────────


def test_the_limit_starts_low_and_grows_while_slots_are_used(build: Build) -> None:
    """It grows by one with each accepted order, up to the maximum."""
    store = build(in_flight=20, initial_in_flight=4)
    enqueue_jobs(store, *numbered_voices(40))
    assert store.flow_control.in_flight_limit() == InFlightLimit(4, 20)

    assert len(order(store)) == 4
    # The first alone uses no half of the slots.
    assert store.flow_control.in_flight_limit().limit in (7, 8)
    for _ in range(9):
        order(store)
        assert store.count_in_flight() <= store.flow_control.in_flight_limit().limit

    assert store.flow_control.in_flight_limit() == InFlightLimit(20, 20)
    assert store.count_in_flight() == 20


def test_the_limit_does_not_grow_while_slots_are_free(build: Build) -> None:
    """Single jobs say nothing about many at once."""
    store = build(in_flight=100, initial_in_flight=10)
    for number in range(30):
        enqueue_jobs(store, voice(key=f"{number}"))
        finish(store, order(store))

    assert store.flow_control.in_flight_limit().limit == 10


def test_rate_limiting_halves_the_limit(build: Build) -> None:
    """It is half of what upstream accepted, not of what was tried."""
    store = build(in_flight=100, initial_in_flight=24)
    enqueue_jobs(store, *numbered_voices(40))
    order(store)
    assert store.count_in_flight() == 24

    rate_limit(store, NOW + 1)

    assert store.flow_control.in_flight_limit().limit == 12
    assert [hold.until for hold in store.flow_control.gate(NOW + 1).holds] == [NOW + 6]
    assert store.admit(NOW + 6).by_stage == {}


def test_responses_of_one_moment_decrease_the_limit_once(build: Build) -> None:
    """Orders submit_more before the decrease say nothing new; later ones do."""
    store = build(in_flight=100, initial_in_flight=24)
    enqueue_jobs(store, *numbered_voices(40))
    order(store)

    first, second, *others = submit_more(store, 6)
    assert rate_limit_order(store, first) is HoldEffect.CLOSED
    rate_limit_order(store, second)
    finish(store, list(store.list_ids(state=State.PENDING))[:4])
    assert [rate_limit_order(store, job_id, NOW + n) for n, job_id in enumerate(others, 1)] == [HoldEffect.NONE] * 4
    assert store.flow_control.in_flight_limit().limit == 12

    rate_limit(store, NOW + 20)
    assert store.flow_control.in_flight_limit().limit == 10


def test_the_limit_is_at_least_one(build: Build) -> None:
    """However often upstream refuses, one job is tried."""
    store = build(in_flight=100, initial_in_flight=3)
    enqueue_jobs(store, voice())
    for n in range(9):
        rate_limit(store, NOW + 60 * n)
        assert store.flow_control.in_flight_limit().limit == 1

    assert len(order(store, NOW + 1_000)) == 1


def test_the_limit_grows_back_quickly_to_the_ceiling_and_slowly_beyond(build: Build) -> None:
    """One more is probed after filling all slots once, and after a failure at least four times as many orders later."""
    store = build(in_flight=100, initial_in_flight=12)
    enqueue_jobs(store, *numbered_voices(900))
    order(store)
    pending_count = store.count_in_flight()
    rate_limit(store)
    finish(store, list(store.list_ids(state=State.PENDING)))

    assert orders_until(store, pending_count, NOW + 5) <= 2 * pending_count
    first = orders_until(store, pending_count + 1, NOW + 5)
    assert pending_count - 1 <= first <= 2 * pending_count
    rate_limit(store, NOW + 20)
    well = store.count_in_flight()
    finish(store, list(store.list_ids(state=State.PENDING)))
    orders_until(store, well, NOW + 25)
    assert orders_until(store, well + 1, NOW + 25) >= 4 * well - 1


def orders_until(store: JobStore, limit: int, now: float) -> int:
    """Return how many orders upstream accepts, with all slots used, until the limit is reached."""
    for count in range(2_000):
        if store.flow_control.in_flight_limit().limit >= limit:
            return count
        admitted = store.admit(now, at_most=1).by_stage.get(Stage.VOICE, [])
        if not admitted:
            finish(store, list(store.list_ids(state=State.PENDING))[-1:])
            admitted = store.admit(now, at_most=1).by_stage[Stage.VOICE]
        claim_admitted(store, admitted[0], now)
        accept_order(store, admitted[0], now)
    pytest.fail(f"it does not grow to {limit}")


@pytest.mark.parametrize("bears", [1, *(pytest.param(bears, marks=pytest.mark.endurance) for bears in (3, 12, 30))])
def test_the_limit_settles_near_the_capacity_of_upstream(build: Build, bears: int) -> None:
    """It is above for a short time only, rarely far below, and few orders are rate-limited."""
    store = build(in_flight=500, initial_in_flight=10)
    enqueue_jobs(store, *(voice(key=f"{n}") for n in range(2_500)))
    now, rate_limit, rounds, used = NOW, 0, 0, list[float]()
    for beat in range(100):
        now += 1
        for job_id in list(store.list_ids(state=State.PENDING))[::-1][: math.ceil(bears / 4)]:
            apply_transition(store, get_job(store, job_id), State.SUCCEEDED, now)
        for job_id in [job_id for stage in store.admit(now).by_stage.values() for job_id in stage]:
            claim = claim_submit(store, job_id, Stage.VOICE, "h", now, lease=9)
            if not isinstance(claim, SubmitClaim):
                continue
            if store.counts_by_state()[State.PENDING] < bears:
                accept_order(store, job_id, now)
                rounds += beat > 30
            else:
                rate_limit_order(store, job_id, now, hold_s=0.5)
                rate_limit += beat > 30
        if beat > 30:
            used.append(store.counts_by_state()[State.PENDING] / bears)

    assert store.counts_by_state()[State.FAILED] == 0
    assert sum(used) / len(used) >= 0.75
    assert rate_limit <= max(3, 0.04 * rounds)


def test_each_successful_probe_is_followed_by_a_larger_one_sooner(build: Build) -> None:
    """Upstream accepts far more than when it rate-limited."""
    store = build(in_flight=200, initial_in_flight=4)
    enqueue_jobs(store, *numbered_voices(600))
    order(store)
    rate_limit(store)
    finish(store, list(store.list_ids(state=State.PENDING)))

    assert orders_until(store, 100, NOW + 5) <= 85


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.endurance) for seed in (2, 3, 4))])
def test_rare_refusals_that_say_nothing_about_the_number_keep_no_job_waiting(build: Build, seed: int) -> None:
    """One order in two hundred is asked to slow down, however many are in flight: the limit recovers each time."""
    store, chance = build(in_flight=100, initial_in_flight=100), random.Random(seed)
    enqueue_jobs(store, *numbered_voices(2_400))
    duration_s, arriving, now, finished, due = 8, 4, NOW, 0, dict[str, float]()
    for beat in range(600):
        now += 1
        for job_id in [job_id for job_id, at in due.items() if at <= now]:
            apply_transition(store, get_job(store, job_id), State.SUCCEEDED, now)
            del due[job_id]
            finished += 1
        arrived = (beat + 1) * arriving - finished - len(due)
        for job_id in store.admit(now, at_most=arrived).by_stage.get(Stage.VOICE, []):
            if not isinstance(claim_submit(store, job_id, Stage.VOICE, "h", now, lease=9), SubmitClaim):
                continue
            if chance.random() < 0.005:
                rate_limit_order(store, job_id, now, hold_s=0.5)
            else:
                accept_order(store, job_id, now)
                due[job_id] = now + duration_s

    assert finished >= 0.85 * 600 * arriving


@pytest.mark.endurance
@pytest.mark.parametrize("seed", range(1, 5))
def test_the_limit_follows_a_changing_capacity_despite_rare_refusals_that_say_nothing(build: Build, seed: int) -> None:
    """Upstream bears 40 jobs, then 12, then 60, and asks one order in two hundred to slow down anyway."""
    store, chance = build(in_flight=200, initial_in_flight=10), random.Random(seed)
    for start in range(0, 9_000, 1_000):
        enqueue_jobs(store, *(voice(key=f"{number}") for number in range(start, start + 1_000)))
    now, due, used, rate_limited, accepted = NOW, dict[str, float](), list[float](), 0, 0
    for beat in range(1_200):
        now, bears, is_settled = now + 1, (40, 12, 60)[beat // 400], beat % 400 >= 250
        for job_id in [job_id for job_id, at in due.items() if at <= now]:
            apply_transition(store, get_job(store, job_id), State.SUCCEEDED, now)
            del due[job_id]
        for job_id in store.admit(now).by_stage.get(Stage.VOICE, []):
            if not isinstance(claim_submit(store, job_id, Stage.VOICE, "h", now, lease=9), SubmitClaim):
                continue
            if len(due) >= bears or chance.random() < 0.005:
                rate_limit_order(store, job_id, now, hold_s=0.5)
                rate_limited += is_settled
            else:
                accept_order(store, job_id, now)
                accepted += is_settled
                due[job_id] = now + 8
        if is_settled:
            used.append(len(due) / bears)

    assert sum(used) / len(used) >= 0.6
    assert rate_limited <= 0.02 * accepted


@pytest.mark.parametrize(("after_s", "at_least", "at_most"), [(60, 32, 100), (700, 1, 16)], ids=["soon", "calm since"])
def test_after_a_calm_period_more_is_probed_soon(build: Build, after_s: float, at_least: int, at_most: int) -> None:
    """Upstream's capacity may have changed: after ten minutes filling all slots once is enough."""
    store = build(in_flight=50, initial_in_flight=8)
    enqueue_jobs(store, *numbered_voices(300))
    ceiling = len(order(store))
    rate_limit(store, NOW, hold_s=1)
    finish(store, list(store.list_ids(state=State.PENDING)))
    orders_until(store, ceiling + 1, NOW + 5)
    finish(store, list(store.list_ids(state=State.PENDING))[ceiling:])
    rate_limit(store, NOW + 20, hold_s=1)  # the probe fails
    orders = 0
    while store.flow_control.in_flight_limit().limit <= ceiling:
        is_back = store.flow_control.in_flight_limit().limit == ceiling
        finish(store, list(store.list_ids(state=State.PENDING)))
        orders += is_back * len(order(store, NOW + 20 + after_s))

    assert ceiling == 8
    assert at_least <= orders <= at_most


# ── run-time limits ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def own(build: Build) -> JobStore:
    """Return a store with settings of its own."""
    return build(in_flight=50, initial_in_flight=50, submit_rate=120.0, min_balance=7)


def test_limits_set_at_run_time_override_the_settings(own: JobStore, build: Build) -> None:
    """They apply to all workers; None returns to the settings."""
    assert own.flow_control.limits() == Limits(50, 50, 120.0, 7)

    build().flow_control.set_limits(in_flight=3, submit_rate=60, min_balance=100)
    assert own.flow_control.limits() == Limits(3, 50, 60.0, 100)
    assert own.flow_control.in_flight_limit() == InFlightLimit(3, 3)

    own.flow_control.set_limits(in_flight=None, submit_rate=0)
    assert own.flow_control.limits() == Limits(50, 50, None, 100)
    own.flow_control.set_limits(submit_rate=None, min_balance=None)
    assert own.flow_control.limits() == Limits(50, 50, 120.0, 7)


@pytest.mark.parametrize("many", [1_000_000, 1_234_567])
def test_large_limits_are_stored_exactly(own: JobStore, many: int) -> None:
    """They are read back unchanged."""
    own.flow_control.set_limits(in_flight=many, min_balance=many, submit_rate=many + 0.25)

    assert own.flow_control.limits() == Limits(many, 50, many + 0.25, many)
    assert own.admit(NOW).by_stage == {}


def test_a_stored_rate_that_is_too_low_delays_nothing_later(own: JobStore, redis: Redis, prefix: str) -> None:
    """Neither a rate of an earlier release nor the next POST time derived from it delays submission."""
    first, second, third = enqueue_jobs(own, *numbered_voices(3))
    redis.hset(f"{{{prefix}}}:limits", "submit_rate", "1e-320")
    for job_id in (first, second, third):
        apply_transition(own, get_job(own, job_id), State.ADMITTED)
    assert isinstance(claim_submit(own, first, Stage.VOICE, "h", NOW, lease=9), SubmitClaim)
    wait = claim_submit(own, second, Stage.VOICE, "h", NOW, lease=9)
    assert isinstance(wait, SubmitDeferred)
    assert wait.retry_in_s == pytest.approx(60 / SUBMIT_RATE_MIN)

    own.flow_control.set_limits(submit_rate=60)
    wait = claim_submit(own, second, Stage.VOICE, "h", NOW, lease=9)
    assert isinstance(wait, SubmitDeferred)
    assert wait.retry_in_s <= 1
    own.flow_control.set_limits(submit_rate=0)
    assert isinstance(claim_submit(own, third, Stage.VOICE, "h", NOW, lease=9), SubmitClaim)


@pytest.mark.parametrize(
    "wrong",
    [
        {"submit_rate": 1e-320},
        {"submit_rate": 0.009},
        {"in_flight": 0},
        {"in_flight": 2.5},
        {"submit_rate": -1},
        {"submit_rate": math.nan},
        {"submit_rate": math.inf},
        {"min_balance": -1},
        {"min_balance": 0.5},
        {"initial_in_flight": 9},
        {"anything": 1},
    ],
)
def test_an_invalid_limit_is_rejected(own: JobStore, wrong: dict[str, float]) -> None:
    """No other limit of the same call is set."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        own.flow_control.set_limits(**{"min_balance": 3, **wrong})

    assert own.flow_control.limits() == Limits(50, 50, 120.0, 7)


def test_a_limit_of_jobs_in_flight_applies_at_once(build: Build) -> None:
    """The adaptive limit still applies."""
    store = build(in_flight=50, initial_in_flight=5)
    enqueue_jobs(store, *numbered_voices(60))
    order(store)
    store.flow_control.set_limits(in_flight=6)
    order(store)
    assert store.count_in_flight() == 6

    store.flow_control.set_limits(in_flight=2)
    assert order(store) == []
    finish(store, list(store.list_ids(state=State.PENDING))[:5])
    assert len(order(store)) == 1
    store.flow_control.set_limits(in_flight=40)
    assert store.flow_control.in_flight_limit().limit <= 12
