"""How many jobs were finished over time, and how long they took: read from the records, nothing is kept for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, quantiles

from voicequeue.domain.job import State
from voicequeue.storage.connection.keyspace import Keyspace

#: The jobs of one stretch of time whose durations are looked at, spread evenly over it.
SAMPLED = 15


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of time from `begun` to `over` (Unix seconds): jobs that succeeded and failed in it and still stand
    so; of some that succeeded, the seconds that half of them, and nine of ten, took at most from being enqueued to
    the end (`half`, `most`), and half of them from their last order to its result (`order`). None: no job did."""

    begun: float
    over: float
    succeeded: int
    failed: int
    half: float | None
    most: float | None
    order: float | None


def trend(keyspace: Keyspace, now: float, *, span_s: float, stretches: int) -> list[Stretch]:
    """The last `span_s` seconds in so many stretches, the oldest first."""
    width = span_s / stretches
    # On round times, so that a stretch that is over stays as it is.
    end = (int(now / width) + 1) * width
    edges = [end - width * (stretches - each) for each in range(stretches + 1)]
    succeeded, failed = (_before(keyspace, state, edges) for state in (State.SUCCEEDED, State.FAILED))
    taken = _taken(keyspace, succeeded)
    return [
        Stretch(begun, over, good[1] - good[0], bad[1] - bad[0], *_summed(took))
        for (begun, over), good, bad, took in zip(
            pairwise(edges), pairwise(succeeded), pairwise(failed), taken, strict=True
        )
    ]


def _before(keyspace: Keyspace, state: State, edges: Sequence[float]) -> list[int]:
    """How many jobs of that state entered it before each edge."""
    with keyspace.redis.pipeline(transaction=False) as pipe:
        for edge in edges:
            pipe.zcount(keyspace.key(f"state:{state}"), "-inf", f"({edge}")
        return [int(count) for count in pipe.execute()]


def _taken(keyspace: Keyspace, ranks: Sequence[int]) -> Iterator[list[tuple[float, float | None]]]:
    """For each stretch: how long some of its jobs took as a whole, and their last order."""
    places = [_spread(first, after) for first, after in pairwise(ranks)]
    with keyspace.redis.pipeline(transaction=False) as pipe:
        for place in (each for some in places for each in some):
            pipe.zrange(keyspace.key(f"state:{State.SUCCEEDED}"), place, place)
        found = [job_id for some in pipe.execute() for job_id in some or [""]]
        for job_id in found:
            pipe.hmget(keyspace.key(f"job:{job_id}"), "created", "settled", "since")
        records = iter(pipe.execute())
    for some in places:
        told = [next(records) for _ in some]
        yield [
            (float(settled) - float(created), float(settled) - float(since) if since else None)
            for created, settled, since in told
            if created and settled
        ]


def _spread(first: int, after: int) -> list[int]:
    """Up to `SAMPLED` ranks from `first` on, before `after`."""
    count = after - first
    return [first + place * count // min(count, SAMPLED) for place in range(min(count, SAMPLED))]


def _summed(took: Sequence[tuple[float, float | None]]) -> tuple[float | None, float | None, float | None]:
    whole = [seconds for seconds, _ in took]
    orders = [seconds for _, seconds in took if seconds is not None]
    if not whole:
        return None, None, None
    most = quantiles(whole, n=10, method="inclusive")[-1] if len(whole) > 1 else whole[0]
    return median(whole), most, median(orders) if orders else None
