"""What the processes count beside the records: calls to upstream, and how long things take.

Each process adds to everybody's counts in Redis about once a second, in one round trip: one that is killed takes
its last second with it. What is paid and where jobs stand is never counted here, but in the scripts that move them.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from redis.exceptions import RedisError

from voicequeue.storage.connection.keyspace import Keyspace

#: The upper bounds (seconds) of what is measured; above the last one lies only infinity.
BOUNDS: Mapping[str, tuple[float, ...]] = {
    "call": (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    "stage": (15, 30, 45, 60, 90, 120, 180, 240, 300, 600, 900, 1800, 3600),
    "lateness": (1, 2.5, 5, 10, 15, 20, 25, 30, 60, 120, 300),
}

_INFINITY = "+Inf"


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often what was measured lay within each upper bound (and not the one before), and the sum of all."""

    bounds: tuple[str, ...]
    counts: tuple[int, ...]
    sum: float

    def cumulated(self) -> list[tuple[str, int]]:
        """How often it lay at or below each bound; the last is infinity."""
        total = 0
        found = []
        for bound, count in zip(self.bounds, self.counts, strict=True):
            total += count
            found.append((bound, total))
        return found


@dataclass(frozen=True, slots=True)
class Tallied:
    """What all processes have counted: by name (`a:b:c`), and measured: by what was measured and of what."""

    counts: dict[str, int]
    histograms: dict[tuple[str, str], Histogram]

    def under(self, name: str) -> Iterator[tuple[list[str], int]]:
        """The counts whose names begin so, each with the rest of its name."""
        for each, count in sorted(self.counts.items()):
            first, *rest = each.split(":")
            if first == name:
                yield rest, count

    def measured(self, what: str) -> Iterator[tuple[str, Histogram]]:
        """The histograms of that, each with what it is of."""
        return ((of, found) for (name, of), found in sorted(self.histograms.items()) if name == what)


class Tally:
    """Counts and measures for one process. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace, *, every_s: float = 1.0) -> None:
        self._space = keyspace
        self._every_s = every_s
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._sums: Counter[str] = Counter()
        self._timer: threading.Timer | None = None

    def count(self, *name: str) -> None:
        """It happened once more."""
        with self._lock:
            self._counts[":".join(name)] += 1
            self._soon()

    def measure(self, what: str, of: str, seconds: float) -> None:
        """It took so long; `what` is one of BOUNDS."""
        bounds = BOUNDS[what]
        place = bisect_left(bounds, seconds)
        bound = f"{bounds[place]:g}" if place < len(bounds) else _INFINITY
        with self._lock:
            self._counts[f"{what}.le:{of}:{bound}"] += 1
            self._sums[f"{what}.sum:{of}"] += seconds  # type: ignore[assignment]  # a Counter of floats adds as well
            self._soon()

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(self._every_s, self.flush)
            self._timer.daemon = True
            self._timer.start()

    def flush(self) -> None:
        """Add what was counted to everybody's now; where Redis is away it is kept for the next time."""
        with self._lock:
            counts, sums = self._counts, self._sums
            self._counts, self._sums, self._timer = Counter(), Counter(), None
        if not counts:
            return
        try:
            self._write(counts, sums)
        except RedisError:
            with self._lock:
                self._counts.update(counts)
                self._sums.update(sums)

    def _write(self, counts: Counter[str], sums: Counter[str]) -> None:
        key = self._space.key("metrics")
        with self._space.redis.pipeline(transaction=True) as pipe:
            for name, count in counts.items():
                pipe.hincrby(key, name, count)
            for name, seconds in sums.items():
                pipe.hincrbyfloat(key, name, float(seconds))
            pipe.execute()

    def read(self) -> Tallied:
        """What all processes have counted so far."""
        found = cast(dict[str, str], self._space.redis.hgetall(self._space.key("metrics")))
        plain = {name: int(count) for name, count in found.items() if "." not in name.partition(":")[0]}
        measured = {tuple(name.split(":")) for name in found if name.partition(":")[0].endswith(".sum")}
        histograms = {(what.removesuffix(".sum"), of): _histogram(found, what, of) for what, of in measured}
        return Tallied(plain, histograms)


def _histogram(found: Mapping[str, str], what: str, of: str) -> Histogram:
    name = what.removesuffix(".sum")
    bounds = (*(f"{bound:g}" for bound in BOUNDS[name]), _INFINITY)
    counts = tuple(int(found.get(f"{name}.le:{of}:{bound}", 0)) for bound in bounds)
    return Histogram(bounds, counts, float(found[f"{name}.sum:{of}"]))
