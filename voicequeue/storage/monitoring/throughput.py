"""Throughput over time and durations of jobs, computed from the records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from statistics import median, quantiles

from voicequeue.domain.namespaces import index_of
from voicequeue.domain.states import State
from voicequeue.storage.connection.keyspace import Keyspace

#: The number of jobs of an interval whose durations are read, spread evenly over it.
SAMPLED = 15


@dataclass(frozen=True, slots=True)
class TimeBucket:
    """An interval and the jobs that succeeded and failed in it.

    Jobs that have changed their state since then are not counted. Durations are those of a sample of the succeeded
    jobs.

    Attributes:
        start: Start of the interval (Unix seconds).
        end: End of the interval (Unix seconds).
        succeeded: Number of jobs that succeeded in it.
        failed: Number of jobs that failed in it.
        p50_s: Median time from enqueueing to the result, in seconds; None if no job was sampled.
        p90_s: 90th percentile of the time from enqueueing to the result, in seconds; None if no job was sampled.
        order_p50_s: Median time from the last submission to its result, in seconds; None if no job was sampled.
    """

    start: float
    end: float
    succeeded: int
    failed: int
    p50_s: float | None
    p90_s: float | None
    order_p50_s: float | None


def throughput(keyspace: Keyspace, now: float, *, span_s: float, buckets: int) -> list[TimeBucket]:
    """Return the last `span_s` seconds in this number of intervals, the oldest first."""
    width = span_s / buckets
    # Intervals start at multiples of their width, so that a past interval does not change.
    end = (int(now / width) + 1) * width
    edges = [end - width * (buckets - index) for index in range(buckets + 1)]
    namespaces = [_intervals(keyspace, namespace, edges) for namespace in keyspace.namespaces()]
    return [
        TimeBucket(
            start,
            end,
            sum(succeeded for succeeded, _, _ in parts),
            sum(failed for _, failed, _ in parts),
            *_summary(list(chain.from_iterable(sample for _, _, sample in parts))),
        )
        for (start, end), parts in zip(pairwise(edges), zip(*namespaces, strict=True), strict=True)
    ]


#: The durations of a sample of jobs: in total, and of the last order.
_Sample = list[tuple[float, float | None]]


def _intervals(keyspace: Keyspace, namespace: str, edges: Sequence[float]) -> list[tuple[int, int, _Sample]]:
    """Return for each interval how many jobs of a namespace succeeded and failed, and the durations of some."""
    succeeded, failed = (
        _counts_before(keyspace, index_of(f"state:{state}", namespace), edges)
        for state in (State.SUCCEEDED, State.FAILED)
    )
    durations = _durations(keyspace, index_of(f"state:{State.SUCCEEDED}", namespace), succeeded)
    return [
        (good[1] - good[0], bad[1] - bad[0], sample)
        for good, bad, sample in zip(pairwise(succeeded), pairwise(failed), durations, strict=True)
    ]


def _counts_before(keyspace: Keyspace, index: str, edges: Sequence[float]) -> list[int]:
    """Return how many jobs of an index entered it before each edge."""
    with keyspace.redis.pipeline(transaction=False) as pipe:
        for edge in edges:
            pipe.zcount(keyspace.key(index), "-inf", f"({edge}")
        return [int(count) for count in pipe.execute()]


def _durations(keyspace: Keyspace, index: str, ranks: Sequence[int]) -> Iterator[_Sample]:
    """Yield for each interval the durations of some of its jobs."""
    samples = [_sampled_ranks(first, after) for first, after in pairwise(ranks)]
    with keyspace.redis.pipeline(transaction=False) as pipe:
        for rank in (rank for sample in samples for rank in sample):
            pipe.zrange(keyspace.key(index), rank, rank)
        job_ids = [job_id for members in pipe.execute() for job_id in members or [""]]
        for job_id in job_ids:
            pipe.hmget(keyspace.key(f"job:{job_id}"), "created", "settled", "submitted_at")
        records = iter(pipe.execute())
    for sample in samples:
        times = [next(records) for _ in sample]
        yield [
            (float(settled) - float(created), float(settled) - float(submitted_at) if submitted_at else None)
            for created, settled, submitted_at in times
            if created and settled
        ]


def _sampled_ranks(first: int, after: int) -> list[int]:
    """Return up to `SAMPLED` ranks from `first` on, before `after`."""
    count = after - first
    return [first + index * count // min(count, SAMPLED) for index in range(min(count, SAMPLED))]


def _summary(sample: Sequence[tuple[float, float | None]]) -> tuple[float | None, float | None, float | None]:
    totals = [seconds for seconds, _ in sample]
    orders = [seconds for _, seconds in sample if seconds is not None]
    if not totals:
        return None, None, None
    p90 = quantiles(totals, n=10, method="inclusive")[-1] if len(totals) > 1 else totals[0]
    return median(totals), p90, median(orders) if orders else None
