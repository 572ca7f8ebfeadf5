"""The pace: how many jobs upstream bears, how many POSTs a minute, and limits that are set while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from redis import Redis

from tests.store.life import NOW, accepted, charge, charging, make, one, put, slowed
from tests.support.jobs import numbered, voice
from voicequeue import Stage, State
from voicequeue.domain.claims import Charged, Later
from voicequeue.domain.gate import SUBMIT_RATE_MIN, Effect, Limits
from voicequeue.storage.flow_control import Flow
from voicequeue.storage.job_store import Store

Build = Callable[..., Store]


@pytest.fixture
def build(redis: Redis, prefix: str) -> Build:
    """Stores of this test's jobs, each with its settings."""
    return lambda **limits: Store(redis, prefix, limits=Limits(**limits))


def order(store: Store, now: float = NOW) -> list[str]:
    """Admit what may begin, and let upstream take each order."""
    job_ids = [job_id for stage in store.admit(now).by_stage.values() for job_id in stage]
    for job_id in job_ids:
        charging(store, job_id, now)
        accepted(store, job_id, now)
    return job_ids


def finish(store: Store, job_ids: list[str]) -> None:
    """They succeed."""
    for job_id in job_ids:
        make(store, one(store, job_id), State.SUCCEEDED)


def sent(store: Store, count: int, now: float = NOW) -> list[str]:
    """That many more orders are on their way, whatever the limit says."""
    job_ids = put(store, *(voice(key=f"sent-{now}-{number}") for number in range(count)))
    for job_id in job_ids:
        make(store, one(store, job_id), State.ADMITTED, now)
        charging(store, job_id, now)
    return job_ids


def slow(store: Store, now: float = NOW, **waits: float) -> None:
    """Upstream says "slow down" of two orders that are on their way."""
    for job_id in sent(store, 2, now):
        slowed(store, job_id, now, **waits)


def grown(store: Store, limit: int) -> None:
    """Orders are taken until that many may be in flight."""
    for _ in range(500):
        if store.controls.flow().limit >= limit:
            return
        if job_ids := order(store):
            finish(store, job_ids[: len(job_ids) // 2])
        else:
            finish(store, list(store.ids(state=State.PENDING)))
    pytest.fail("the limit does not grow")


# ── how many upstream bears ───────────────────────────────────────────────────────────────────────


def test_it_begins_with_a_few_and_grows_while_they_are_used(build: Build) -> None:
    """By one with each order that upstream takes, up to the most."""
    store = build(in_flight=20, first_in_flight=4)
    put(store, *numbered(40))
    assert store.controls.flow() == Flow(4, 20)

    assert len(order(store)) == 4
    # The first alone uses no half of the slots.
    assert store.controls.flow().limit in (7, 8)
    for _ in range(9):
        order(store)
        assert store.in_flight() <= store.controls.flow().limit

    assert store.controls.flow() == Flow(20, 20)
    assert store.in_flight() == 20


def test_it_does_not_grow_while_it_is_not_used(build: Build) -> None:
    """One job after another says nothing about many at once."""
    store = build(in_flight=100, first_in_flight=10)
    for number in range(30):
        put(store, voice(key=f"{number}"))
        finish(store, order(store))

    assert store.controls.flow().limit == 10


def test_when_upstream_says_slow_down_it_is_halved(build: Build) -> None:
    """From what upstream was well with, not from what was tried."""
    store = build(in_flight=100, first_in_flight=24)
    put(store, *numbered(40))
    order(store)
    assert store.in_flight() == 24

    slow(store, NOW + 1)

    assert store.controls.flow().limit == 12
    assert [hold.until for hold in store.controls.gate(NOW + 1).holds] == [NOW + 6]
    assert store.admit(NOW + 6).by_stage == {}


def test_all_answers_of_one_moment_are_one_cut(build: Build) -> None:
    """Those of orders that left before the cut say nothing new; the next ones do."""
    store = build(in_flight=100, first_in_flight=24)
    put(store, *numbered(40))
    order(store)

    first, second, *others = sent(store, 6)
    assert slowed(store, first) is Effect.CLOSED
    slowed(store, second)
    finish(store, list(store.ids(state=State.PENDING))[:4])
    assert [slowed(store, job_id, NOW + n) for n, job_id in enumerate(others, 1)] == [Effect.NONE] * 4
    assert store.controls.flow().limit == 12

    slow(store, NOW + 20)
    assert store.controls.flow().limit == 10


def test_it_never_goes_below_one(build: Build) -> None:
    """However often upstream says no, one job is tried."""
    store = build(in_flight=100, first_in_flight=3)
    put(store, voice())
    for n in range(9):
        slow(store, NOW + 60 * n)
        assert store.controls.flow().limit == 1

    assert len(order(store, NOW + 1_000)) == 1


def test_it_grows_back_quickly_to_where_it_was_well_and_patiently_beyond(build: Build) -> None:
    """One more is tried when all slots were filled four times over, and after each failure four times later."""
    store = build(in_flight=100, first_in_flight=12)
    put(store, *numbered(900))
    order(store)
    held = store.in_flight()
    slow(store)
    finish(store, list(store.ids(state=State.PENDING)))

    assert orders_until(store, held, NOW + 5) <= 2 * held
    first = orders_until(store, held + 1, NOW + 5)
    assert 2 * held <= first <= 5 * held
    slow(store, NOW + 20)
    well = store.in_flight()
    finish(store, list(store.ids(state=State.PENDING)))
    orders_until(store, well, NOW + 25)
    assert orders_until(store, well + 1, NOW + 25) > first


def orders_until(store: Store, limit: int, now: float) -> int:
    """How many orders upstream takes, all slots used, until so many may be in flight."""
    for count in range(2_000):
        if store.controls.flow().limit >= limit:
            return count
        admitted = store.admit(now, at_most=1).by_stage.get(Stage.VOICE, [])
        if not admitted:
            finish(store, list(store.ids(state=State.PENDING))[-1:])
            admitted = store.admit(now, at_most=1).by_stage[Stage.VOICE]
        charging(store, admitted[0], now)
        accepted(store, admitted[0], now)
    pytest.fail(f"it does not grow to {limit}")


@pytest.mark.parametrize("bears", [1, 3, 12, 30])
def test_it_settles_near_what_upstream_bears(build: Build, bears: int) -> None:
    """Never above it for long, seldom far below; few orders are told to slow down."""
    store = build(in_flight=500, first_in_flight=10)
    put(store, *(voice(key=f"{n}") for n in range(2_500)))
    now, slow, taken, used = NOW, 0, 0, list[float]()
    for beat in range(100):
        now += 1
        for job_id in list(store.ids(state=State.PENDING))[::-1][: math.ceil(bears / 4)]:
            make(store, one(store, job_id), State.SUCCEEDED, now)
        for job_id in [job_id for stage in store.admit(now).by_stage.values() for job_id in stage]:
            claim = charge(store, job_id, Stage.VOICE, "h", now, lease=9)
            if not isinstance(claim, Charged):
                continue
            if store.counts()[State.PENDING] < bears:
                accepted(store, job_id, now)
                taken += beat > 30
            else:
                slowed(store, job_id, now, pause_s=0.5)
                slow += beat > 30
        if beat > 30:
            used.append(store.counts()[State.PENDING] / bears)

    assert store.counts()[State.FAILED] == 0
    assert sum(used) / len(used) >= 0.75
    assert slow <= max(3, 0.04 * taken)


@pytest.mark.parametrize(("after_s", "at_least", "at_most"), [(60, 32, 100), (700, 1, 16)], ids=["soon", "calm since"])
def test_after_a_calm_time_more_is_tried_soon(build: Build, after_s: float, at_least: int, at_most: int) -> None:
    """What held upstream back at the time may be over: ten minutes later filling all slots once is enough."""
    store = build(in_flight=50, first_in_flight=8)
    put(store, *numbered(300))
    ceiling = len(order(store))
    slow(store, NOW, pause_s=1)
    orders = 0
    while store.controls.flow().limit <= ceiling:
        is_back = store.controls.flow().limit == ceiling
        finish(store, list(store.ids(state=State.PENDING)))
        orders += is_back * len(order(store, NOW + after_s))

    assert ceiling == 8
    assert at_least <= orders <= at_most


# ── limits that are set while it runs ─────────────────────────────────────────────────────────────


@pytest.fixture
def own(build: Build) -> Store:
    """A store with settings of its own."""
    return build(in_flight=50, first_in_flight=50, submit_rate=120.0, credit_floor=7)


def test_limits_are_the_settings_until_somebody_sets_them(own: Store, build: Build) -> None:
    """For all workers, whatever their settings; None goes back to those."""
    assert own.controls.limits() == Limits(50, 50, 120.0, 7)

    build().controls.set_limits(in_flight=3, submit_rate=60, credit_floor=100)
    assert own.controls.limits() == Limits(3, 50, 60.0, 100)
    assert own.controls.flow() == Flow(3, 3)

    own.controls.set_limits(in_flight=None, submit_rate=0)
    assert own.controls.limits() == Limits(50, 50, None, 100)
    own.controls.set_limits(submit_rate=None, credit_floor=None)
    assert own.controls.limits() == Limits(50, 50, 120.0, 7)


@pytest.mark.parametrize("many", [1_000_000, 1_234_567])
def test_large_limits_are_kept_to_the_last_digit(own: Store, many: int) -> None:
    """And can be read again."""
    own.controls.set_limits(in_flight=many, credit_floor=many, submit_rate=many + 0.25)

    assert own.controls.limits() == Limits(many, 50, many + 0.25, many)
    assert own.admit(NOW).by_stage == {}


def test_a_rate_that_was_far_too_low_holds_nothing_up_when_another_is_set(
    own: Store, redis: Redis, prefix: str
) -> None:
    """Neither one that an earlier release let in, nor the time of the next POST that follows from it."""
    first, second, third = put(own, *numbered(3))
    redis.hset(f"{{{prefix}}}:limits", "submit_rate", "1e-320")
    for job_id in (first, second, third):
        make(own, one(own, job_id), State.ADMITTED)
    assert isinstance(charge(own, first, Stage.VOICE, "h", NOW, lease=9), Charged)
    wait = charge(own, second, Stage.VOICE, "h", NOW, lease=9)
    assert isinstance(wait, Later)
    assert wait.seconds == pytest.approx(60 / SUBMIT_RATE_MIN)

    own.controls.set_limits(submit_rate=60)
    wait = charge(own, second, Stage.VOICE, "h", NOW, lease=9)
    assert isinstance(wait, Later)
    assert wait.seconds <= 1
    own.controls.set_limits(submit_rate=0)
    assert isinstance(charge(own, third, Stage.VOICE, "h", NOW, lease=9), Charged)


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
        {"credit_floor": -1},
        {"credit_floor": 0.5},
        {"first_in_flight": 9},
        {"anything": 1},
    ],
)
def test_a_limit_that_is_none_is_refused(own: Store, wrong: dict[str, float]) -> None:
    """And nothing of what was given with it is set."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        own.controls.set_limits(**{"credit_floor": 3, **wrong})

    assert own.controls.limits() == Limits(50, 50, 120.0, 7)


def test_a_limit_of_jobs_in_flight_counts_at_once(build: Build) -> None:
    """More than upstream was found to bear is not tried because of it."""
    store = build(in_flight=50, first_in_flight=5)
    put(store, *numbered(60))
    order(store)
    store.controls.set_limits(in_flight=6)
    order(store)
    assert store.in_flight() == 6

    store.controls.set_limits(in_flight=2)
    assert order(store) == []
    finish(store, list(store.ids(state=State.PENDING))[:5])
    assert len(order(store)) == 1
    store.controls.set_limits(in_flight=40)
    assert store.controls.flow().limit <= 12
