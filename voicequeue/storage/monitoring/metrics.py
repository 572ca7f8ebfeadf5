"""Counters and histograms of all processes: requests to upstream, and durations.

Each process adds its figures to Redis every few seconds, in one round trip; a killed process loses its last seconds.
Credits and states of jobs are never counted here, but by the scripts that change them.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar, cast

from redis.exceptions import RedisError

from voicequeue.storage.connection.keyspace import Keyspace

T = TypeVar("T")

#: Seconds between two writes of a process; monitoring reads the figures less often.
FLUSH_EVERY_S = 3.0

#: The upper bounds (seconds) of the histograms; the last bucket has no bound.
BOUNDS: Mapping[str, tuple[float, ...]] = {
    "upstream_request": (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    "stage": (15, 30, 45, 60, 90, 120, 180, 240, 300, 600, 900, 1800, 3600),
    "result_detection_delay": (1, 2.5, 5, 10, 15, 20, 25, 30, 60, 120, 300),
}

_INFINITY = "+Inf"


@dataclass(frozen=True, slots=True)
class Histogram:
    """The number of values in each bucket, by its upper bound, and the sum of all values."""

    bounds: tuple[str, ...]
    counts: tuple[int, ...]
    sum: float

    def cumulative(self) -> list[tuple[str, int]]:
        """Return the number of values at or below each bound; the last bound is infinity."""
        return list(zip(self.bounds, accumulate(self.counts), strict=True))


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """The figures of all processes: counters by name (`a:b:c`), histograms by measure and subject."""

    counts: dict[str, int]
    histograms: dict[tuple[str, str], Histogram]

    def counters_under(self, name: str) -> Iterator[tuple[list[str], int]]:
        """Yield the counters whose names start with `name`, each with the other parts of its name."""
        for full_name, count in sorted(self.counts.items()):
            first, *rest = full_name.split(":")
            if first == name:
                yield rest, count

    def histograms_of(self, what: str) -> Iterator[tuple[str, Histogram]]:
        """Yield the histograms of this measure, each with its subject."""
        return ((of, histogram) for (name, of), histogram in sorted(self.histograms.items()) if name == what)


class MetricsCounter:
    """The counters and histograms of one process. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace, *, every_s: float = FLUSH_EVERY_S) -> None:
        self._space = keyspace
        self._every_s = every_s
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        #: What was counted since the last flush: a name, or a histogram with a value in seconds.
        self._entries: deque[tuple[tuple[str, ...], float | None]] = deque()
        #: The increments that are not written, of counters and of the sums of histograms.
        self._counts, self._sums = Counter[str](), defaultdict[str, float](float)
        self._timer: threading.Timer | None = None

    def increment(self, *name: str) -> None:
        """Increment a counter."""
        self._add(name, None)

    def observe(self, measure: str, subject: str, seconds: float) -> None:
        """Add a duration to a histogram; `measure` is one of `BOUNDS`."""
        self._add((measure, subject), seconds)

    def _add(self, name: tuple[str, ...], seconds: float | None) -> None:
        self._entries.append((name, seconds))
        if self._timer is None:
            self._schedule_flush()

    def _schedule_flush(self) -> None:
        with self._lock:
            if self._timer is None:
                self._timer = threading.Timer(self._every_s, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Write the figures now; while Redis is unreachable they are kept for the next flush."""
        self._timer = None  # what is added from now on may miss this flush
        with self._flushing, suppress(RedisError):
            _add_up(_drained(self._entries), self._counts, self._sums)
            if self._counts:
                self._write(self._counts, self._sums)
                self._counts.clear()
                self._sums.clear()

    def _write(self, counts: Mapping[str, int], sums: Mapping[str, float]) -> None:
        key = self._space.key("metrics")
        with self._space.redis.pipeline(transaction=True) as pipe:
            for name, count in counts.items():
                pipe.hincrby(key, name, count)
            for name, seconds in sums.items():
                pipe.hincrbyfloat(key, name, seconds)
            pipe.execute()

    def read(self) -> MetricsSnapshot:
        """Return the figures of all processes."""
        fields = cast(dict[str, str], self._space.redis.hgetall(self._space.key("metrics")))
        plain = {name: int(count) for name, count in fields.items() if "." not in name.partition(":")[0]}
        measured = {tuple(name.split(":")) for name in fields if name.partition(":")[0].endswith(".sum")}
        histograms = {(what.removesuffix(".sum"), of): _histogram(fields, what, of) for what, of in measured}
        return MetricsSnapshot(plain, histograms)


def _drained(entries: deque[T]) -> Iterator[T]:
    """Remove and yield the entries, oldest first; other threads may add some meanwhile."""
    with suppress(IndexError):
        while True:
            yield entries.popleft()


def _add_up(
    entries: Iterable[tuple[tuple[str, ...], float | None]], counts: Counter[str], sums: dict[str, float]
) -> None:
    """Add entries to the increments of the counters, and of the sums of the histograms."""
    for name, seconds in entries:
        if seconds is None:
            counts[":".join(name)] += 1
            continue
        measure, subject = name
        counts[f"{measure}.le:{subject}:{_bound(measure, seconds)}"] += 1
        sums[f"{measure}.sum:{subject}"] += seconds


def _bound(measure: str, seconds: float) -> str:
    """Return the upper bound of the bucket of a value."""
    bounds = BOUNDS[measure]
    index = bisect_left(bounds, seconds)
    return f"{bounds[index]:g}" if index < len(bounds) else _INFINITY


def _histogram(fields: Mapping[str, str], what: str, of: str) -> Histogram:
    name = what.removesuffix(".sum")
    bounds = (*(f"{bound:g}" for bound in BOUNDS[name]), _INFINITY)
    counts = tuple(int(fields.get(f"{name}.le:{of}:{bound}", 0)) for bound in bounds)
    return Histogram(bounds, counts, float(fields[f"{name}.sum:{of}"]))
