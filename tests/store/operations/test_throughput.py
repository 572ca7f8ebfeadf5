"""Throughput over time, computed from the records."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.store.life import NOW, apply_transition, fail_job, job_in_state
from tests.support.jobs import voice_with_song
from voicequeue import FailureCode, State, TimeBucket
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.throughput import SAMPLED


def finished(store: JobStore, key: str, at: float, *, waited: float, worked: float) -> None:
    """Finish a job that waited `waited` seconds before its submission and took `worked` seconds after it."""
    job = job_in_state(store, State.PENDING, voice_with_song(key=key), now=at - waited - worked)
    fields = {"settled": str(at), "submitted_at": str(at - worked)}
    apply_transition(store, job, State.SUCCEEDED, at, fields=fields)


def last_minute(store: JobStore, **more: float) -> list[TimeBucket]:
    """Return the last minute in ten intervals."""
    return store.throughput(NOW, **{"span_s": 60.0, "buckets": 10, **more})  # type: ignore[arg-type]


def test_without_finished_jobs_all_counts_are_zero(store: JobStore) -> None:
    """The number of intervals is as requested; they are consecutive, and the last is in progress."""
    intervals = last_minute(store)

    assert len(intervals) == 10
    assert all(a.end == b.start for a, b in pairwise(intervals))
    assert intervals[-1].start <= NOW < intervals[-1].end
    assert {(interval.succeeded, interval.failed, interval.p50_s) for interval in intervals} == {(0, 0, None)}


def test_each_interval_counts_its_finished_jobs(store: JobStore) -> None:
    """It also has their durations, in total and of the last order."""
    for place, waited in enumerate((10, 20, 60)):
        finished(store, f"a{place}", NOW - 30, waited=waited, worked=5)
    finished(store, "b", NOW, waited=0, worked=3)
    fail_job(
        store,
        job_in_state(store, State.PENDING, voice_with_song(key="f"), now=NOW - 1),
        FailureCode.UPSTREAM_FAILED,
        now=NOW,
    )
    finished(store, "long ago", NOW - 1_000, waited=1, worked=1)

    some = [interval for interval in last_minute(store) if interval.succeeded or interval.failed]

    assert [(interval.succeeded, interval.failed) for interval in some] == [(3, 0), (1, 1)]
    assert [interval.p50_s for interval in some] == pytest.approx([25, 3])
    assert [interval.order_p50_s for interval in some] == pytest.approx([5, 3])
    assert some[0].p90_s == pytest.approx(57)


def test_of_many_jobs_a_sample_is_read(store: JobStore) -> None:
    """The number of jobs does not make it slow."""
    for place in range(4 * SAMPLED):
        finished(store, f"j{place}", NOW - 2 + place / 100, waited=place, worked=0)

    [one] = [interval for interval in last_minute(store) if interval.succeeded]

    assert one.succeeded == 4 * SAMPLED
    assert one.p50_s == pytest.approx(4 * SAMPLED / 2, rel=0.15)
