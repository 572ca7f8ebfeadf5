"""What processes count beside the records, added up in Redis."""

from __future__ import annotations

import threading

import pytest
from redis import Redis

from tests.conftest import eventually
from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.storage.monitoring.metrics import BOUNDS, Tally


@pytest.fixture
def space(redis: Redis, prefix: str) -> Keyspace:
    """The keys of this test's own."""
    return Keyspace(redis, prefix)


def test_what_several_processes_count_is_one_sum(space: Keyspace) -> None:
    """Each tells by itself, soon after."""
    first, second = Tally(space, every_s=0.05), Tally(space, every_s=0.05)
    for tally in (first, second, second):
        tally.count("call", "task", "ok")
    second.count("call", "task", "slow_down")

    eventually(lambda: first.read().counts == {"call:task:ok": 3, "call:task:slow_down": 1})
    assert list(first.read().under("call")) == [(["task", "ok"], 3), (["task", "slow_down"], 1)]


def test_threads_lose_nothing(space: Keyspace) -> None:
    """While one tells, others count on."""
    tally = Tally(space, every_s=0.001)

    def work() -> None:
        for _ in range(2_000):
            tally.count("x")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.flush()

    eventually(lambda: tally.read().counts == {"x": 8_000})


@pytest.mark.parametrize(
    ("seconds", "bound"), [(0.0, "0.05"), (0.05, "0.05"), (0.0501, "0.1"), (30.0, "30"), (30.1, "+Inf")]
)
def test_what_is_measured_lies_within_its_bound(space: Keyspace, seconds: float, bound: str) -> None:
    """As Prometheus has it: at the bound is within it; above the last is infinity."""
    tally = Tally(space)
    tally.measure("call", "task", seconds)
    tally.flush()

    [(of, found)] = tally.read().measured("call")
    assert of == "task"
    assert found.sum == pytest.approx(seconds)
    first = next(place for place, (_, count) in enumerate(found.cumulated()) if count)
    assert (found.bounds[first], found.cumulated()[-1]) == (bound, ("+Inf", 1))
    assert len(found.counts) == len(BOUNDS["call"]) + 1


def test_while_redis_refuses_counts_are_kept_for_the_next_time(space: Keyspace) -> None:
    """Counting raises nothing, and nobody waits."""
    tally = Tally(space, every_s=60)
    tally.count("x")
    tally.measure("call", "task", 2)
    space.redis.execute_command("ACL", "SETUSER", "default", "-hincrby")  # type: ignore[no-untyped-call]
    try:
        tally.flush()
    finally:
        space.redis.execute_command("ACL", "SETUSER", "default", "+hincrby")  # type: ignore[no-untyped-call]
    assert tally.read().counts == {}
    tally.count("x")
    tally.flush()

    assert tally.read().counts == {"x": 2}
    assert [found.sum for _, found in tally.read().measured("call")] == [2.0]
