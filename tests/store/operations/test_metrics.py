"""Counters and histograms of several processes, summed in Redis."""

from __future__ import annotations

import threading

import pytest
from redis import Redis

from tests.conftest import eventually
from tests.store.life import enqueue_jobs, job_in_state
from tests.support.jobs import voice_with_song
from voicequeue import State
from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.metrics import BOUNDS, MetricsCounter
from workers.gateway.api.metrics import QueueCollector


@pytest.fixture
def space(redis: Redis, prefix: str) -> Keyspace:
    """Return the keyspace of the test."""
    return Keyspace(redis, prefix)


def test_counters_of_several_processes_are_added(space: Keyspace) -> None:
    """Each process writes by itself, shortly after counting."""
    first, second = MetricsCounter(space, every_s=0.05), MetricsCounter(space, every_s=0.05)
    for metrics in (first, second, second):
        metrics.increment("upstream_request", "poll", "ok")
    second.increment("upstream_request", "poll", "rate_limited")

    eventually(lambda: first.read().counts == {"upstream_request:poll:ok": 3, "upstream_request:poll:rate_limited": 1})
    assert list(first.read().counters_under("upstream_request")) == [(["poll", "ok"], 3), (["poll", "rate_limited"], 1)]


def test_threads_lose_nothing(space: Keyspace) -> None:
    """While one thread writes, others keep counting."""
    metrics = MetricsCounter(space, every_s=0.001)

    def work() -> None:
        for _ in range(2_000):
            metrics.increment("x")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    metrics.flush()

    eventually(lambda: metrics.read().counts == {"x": 8_000})


@pytest.mark.parametrize(
    ("seconds", "bound"), [(0.0, "0.05"), (0.05, "0.05"), (0.0501, "0.1"), (30.0, "30"), (30.1, "+Inf")]
)
def test_a_value_is_counted_in_its_bucket(space: Keyspace, seconds: float, bound: str) -> None:
    """As in Prometheus, a bound is inclusive; the last bucket is infinity."""
    metrics = MetricsCounter(space)
    metrics.observe("upstream_request", "poll", seconds)
    metrics.flush()

    [(of, histogram)] = metrics.read().histograms_of("upstream_request")
    assert of == "poll"
    assert histogram.sum == pytest.approx(seconds)
    first = next(place for place, (_, count) in enumerate(histogram.cumulative()) if count)
    assert (histogram.bounds[first], histogram.cumulative()[-1]) == (bound, ("+Inf", 1))
    assert len(histogram.counts) == len(BOUNDS["upstream_request"]) + 1


def test_while_redis_refuses_counters_are_kept(space: Keyspace) -> None:
    """Counting raises no error and does not block."""
    metrics = MetricsCounter(space, every_s=60)
    metrics.increment("x")
    metrics.observe("upstream_request", "poll", 2)
    space.redis.execute_command("ACL", "SETUSER", "default", "-hincrby")  # type: ignore[no-untyped-call]
    try:
        metrics.flush()
    finally:
        space.redis.execute_command("ACL", "SETUSER", "default", "+hincrby")  # type: ignore[no-untyped-call]
    assert metrics.read().counts == {}
    metrics.increment("x")
    metrics.flush()

    assert metrics.read().counts == {"x": 2}
    assert [histogram.sum for _, histogram in metrics.read().histograms_of("upstream_request")] == [2.0]


def test_the_time_left_is_that_of_all_unsettled_jobs_at_the_current_pace(store: JobStore) -> None:
    """Autoscalers read it. Without a job that succeeded, it is unknown, which is not 0."""
    enqueue_jobs(store, *(voice_with_song(key=f"k{n}") for n in range(4)), now=store.clock())

    assert time_left(store) == []

    job_in_state(store, State.SUCCEEDED, voice_with_song(key="done"), now=store.clock())
    assert time_left(store) == [4 * 300]


def time_left(store: JobStore) -> list[float]:
    """Return the samples of the metric, in seconds."""
    [metric] = [metric for metric in QueueCollector(store).collect() if metric.name == "voicequeue_time_left_seconds"]
    return [sample.value for sample in metric.samples]
