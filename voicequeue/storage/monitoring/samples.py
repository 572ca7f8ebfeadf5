"""Samples of the queue over time: how many jobs are in each state, in flight and its limit, and the credits.

One worker takes a sample a minute for all of them. Each resolution keeps the first one of its interval, so that the
lists of an hour, a day and a week are short.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from redis.exceptions import ResponseError

from voicequeue.domain.states import State
from voicequeue.storage.connection.keyspace import Keyspace

#: Seconds between two samples, and the name of the lock of the worker that takes one.
SAMPLE_INTERVAL_S = 60.0
LOCK = "samples"

#: States whose jobs are counted: those that are not final.
SAMPLED_STATES = (State.QUEUED, State.WAITING, State.ADMITTED, State.CHARGING, State.PENDING, State.UNSURE)


@dataclass(frozen=True, slots=True)
class Resolution:
    """A list of samples: one for each interval of `interval_s` seconds, the latest `count` of them."""

    name: str
    interval_s: int
    count: int


RESOLUTIONS = (Resolution("hour", 60, 61), Resolution("day", 600, 145), Resolution("week", 3_600, 169))


@dataclass(frozen=True, slots=True)
class Sample:
    """The queue at one moment.

    Attributes:
        at: Time of the sample (Unix seconds).
        states: Number of jobs by state, of states that are not final.
        in_flight: Number of jobs that hold a slot.
        in_flight_limit: Number of jobs that may.
        spent: Credits that were ever spent, by our count.
        balance: Credits on the account, by our count; None if it is unknown.
    """

    at: float
    states: Mapping[State, int]
    in_flight: int
    in_flight_limit: int
    spent: int
    balance: int | None = None


class Samples:
    """The samples of one queue. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis

    def record(self, sample: Sample) -> None:
        """Keep a sample in each list whose present interval has none."""
        fields: dict[Any, Any] = {
            **{str(state): sample.states.get(state, 0) for state in SAMPLED_STATES},
            "at": f"{sample.at:.3f}",
            "in_flight": sample.in_flight,
            "in_flight_limit": sample.in_flight_limit,
            "spent": sample.spent,
            **({} if sample.balance is None else {"balance": sample.balance}),
        }
        with self._redis.pipeline(transaction=False) as pipe:
            for resolution in RESOLUTIONS:
                interval_ms = int(sample.at // resolution.interval_s * resolution.interval_s * 1000)
                key = self._key(resolution.name)
                pipe.xadd(key, fields, id=f"{interval_ms}-0", maxlen=resolution.count, approximate=False)
            replies = pipe.execute(raise_on_error=False)
        for reply in replies:
            # Redis refuses an id that is not above the last one: the interval has a sample already.
            if isinstance(reply, Exception) and not (isinstance(reply, ResponseError) and "XADD" in str(reply)):
                raise reply

    def read(self, name: str, since: float) -> list[Sample]:
        """Return the samples of a resolution from that time on, the oldest first."""
        entries = cast(
            list[tuple[str, dict[str, str]]], self._redis.xrange(self._key(name), min=str(max(0, int(since * 1000))))
        )
        return [_sample(fields) for _, fields in entries]

    def _key(self, name: str) -> str:
        return self._space.key(f"samples:{name}")


def _sample(fields: Mapping[str, str]) -> Sample:
    """Parse a sample, also one of a release that keeps other fields."""

    def number(name: str, of: Callable[[str], float] = int) -> Any:
        return of(fields.get(name, "0"))

    return Sample(
        number("at", float),
        {state: number(state) for state in SAMPLED_STATES},
        number("in_flight"),
        number("in_flight_limit"),
        number("spent"),
        int(fields["balance"]) if "balance" in fields else None,
    )
