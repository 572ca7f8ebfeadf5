"""Samples of the queue over time: one for each interval of a resolution, in short lists."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.life import NOW
from voicequeue import State
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.samples import RESOLUTIONS, Sample

HOUR, DAY, WEEK = RESOLUTIONS
START = NOW // HOUR.interval_s * HOUR.interval_s


def sample(at: float, queued: int = 0, balance: int | None = None) -> Sample:
    """Return a sample with this number of queued jobs."""
    counts = dict.fromkeys(HOUR_STATES, 0) | {State.QUEUED: queued}
    return Sample(at, counts, in_flight=3, in_flight_limit=20, spent=queued * 19, balance=balance)


HOUR_STATES = (State.QUEUED, State.WAITING, State.ADMITTED, State.CHARGING, State.PENDING, State.UNSURE)


def test_a_sample_is_read_as_it_was_taken(store: JobStore) -> None:
    """With and without a known balance."""
    first, second = sample(START + 1, 7), sample(START + 61, 8, 500)
    for expected in (first, second):
        store.samples.record(expected)

    assert store.samples.read("hour", START) == [first, second]
    assert store.samples.read("hour", START + 60) == [second]


def test_an_interval_has_one_sample(store: JobStore) -> None:
    """Its first one, also if two workers take one, or a clock is set back."""
    for at in (START + 1, START + 30, START + 61, START - 3_600):
        store.samples.record(sample(at, int(at - START)))

    assert [entry.at for entry in store.samples.read("hour", 0)] == [START + 1, START + 61]
    assert len(store.samples.read("day", 0)) <= 2


def test_the_lists_stay_short(store: JobStore, redis: Redis, prefix: str) -> None:
    """However long the queue runs."""
    for minute in range(300):
        store.samples.record(sample(START + 60 * minute))

    lengths = {it.name: redis.xlen(f"{{{prefix}}}:samples:{it.name}") for it in RESOLUTIONS}
    assert lengths["hour"] == HOUR.count
    assert 30 <= lengths["day"] <= 31
    assert 5 <= lengths["week"] <= 6


@pytest.mark.parametrize("fields", [{"at": "5"}, {"at": "5", "queued": "2", "else": "x"}])
def test_a_sample_of_another_release_is_read(
    store: JobStore, redis: Redis, prefix: str, fields: dict[str, str]
) -> None:
    """It may have fewer fields, or more."""
    redis.xadd(f"{{{prefix}}}:samples:day", fields)  # type: ignore[arg-type]

    [entry] = store.samples.read("day", 0)
    assert (entry.at, entry.states[State.QUEUED], entry.balance) == (5.0, int(fields.get("queued", 0)), None)
