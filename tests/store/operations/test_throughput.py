"""How it went over time, as the records tell it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.store.life import NOW, brought_to, failed, make
from tests.support.jobs import sung
from voicequeue import Code, State, Stretch
from voicequeue.storage.job_store import Store
from voicequeue.storage.monitoring.throughput import SAMPLED


def finished(store: Store, key: str, at: float, *, waited: float, worked: float) -> None:
    """A job that came `waited` seconds before its order, which took `worked` seconds until then."""
    job = brought_to(store, State.PENDING, sung(key=key), now=at - waited - worked)
    fields = {"settled": str(at), "since": str(at - worked)}
    make(store, job, State.SUCCEEDED, at, fields=fields)


def told(store: Store, **more: float) -> list[Stretch]:
    """The last minute in ten stretches."""
    return store.trend(NOW, **{"span_s": 60.0, "stretches": 10, **more})  # type: ignore[arg-type]


def test_nothing_finished_is_all_zeros(store: Store) -> None:
    """As many stretches as were asked for, one after the other, the last of them under way."""
    found = told(store)

    assert len(found) == 10
    assert all(a.over == b.begun for a, b in pairwise(found))
    assert found[-1].begun <= NOW < found[-1].over
    assert {(each.succeeded, each.failed, each.half) for each in found} == {(0, 0, None)}


def test_each_stretch_counts_what_was_finished_in_it(store: Store) -> None:
    """And how long it took from enqueueing on, and the last order."""
    for place, waited in enumerate((10, 20, 60)):
        finished(store, f"a{place}", NOW - 30, waited=waited, worked=5)
    finished(store, "b", NOW, waited=0, worked=3)
    failed(store, brought_to(store, State.PENDING, sung(key="f"), now=NOW - 1), Code.UPSTREAM_FAILED, now=NOW)
    finished(store, "long ago", NOW - 1_000, waited=1, worked=1)

    some = [each for each in told(store) if each.succeeded or each.failed]

    assert [(each.succeeded, each.failed) for each in some] == [(3, 0), (1, 1)]
    assert [each.half for each in some] == pytest.approx([25, 3])
    assert [each.order for each in some] == pytest.approx([5, 3])
    assert some[0].most == pytest.approx(57)


def test_of_many_some_are_looked_at_from_the_first_to_the_last(store: Store) -> None:
    """Their number does not make it slow."""
    for place in range(4 * SAMPLED):
        finished(store, f"j{place}", NOW - 2 + place / 100, waited=place, worked=0)

    [one] = [each for each in told(store) if each.succeeded]

    assert one.succeeded == 4 * SAMPLED
    assert one.half == pytest.approx(4 * SAMPLED / 2, rel=0.15)
