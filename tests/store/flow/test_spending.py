"""Reports of spending: all reports of the same jobs have the same sum, and a namespace sees its own only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime
from itertools import chain, combinations

import pytest
from redis import Redis

from tests.store.life import NOW, accept_order, claim_admitted, job_in_state
from tests.support.jobs import voice
from voicequeue import Scope, Spending, SpendingGroup, State, VoiceQueue
from voicequeue.auth.api_keys import generate_key
from voicequeue.domain.spending import SpendingQuery
from voicequeue.storage.job_store import JobStore

DAY_S = 86_400.0

#: Times of orders: two days of a month, and a day of the next.
TIMES = (NOW, NOW + DAY_S, NOW + 30 * DAY_S)

GROUPS = list(SpendingGroup)


def is_counted(by: Iterable[SpendingGroup]) -> bool:
    """Return whether these columns can be combined."""
    try:
        SpendingQuery(frozenset(by))
    except ValueError:
        return False
    return True


COMBINATIONS = [
    by for by in chain.from_iterable(combinations(GROUPS, size) for size in range(len(GROUPS) + 1)) if is_counted(by)
]


def charge(store: JobStore, key: str, batch: str | None, now: float, *, source: str = "library") -> None:
    """Submit the order of a voice (4 credits)."""
    job = voice(key=key, batch=batch)
    job_id = job.job_id(namespace=store.scope.target)
    store.enqueue([(job_id, job)], now, source=source)
    store.admit(now)
    claim_admitted(store, job_id, now)
    accept_order(store, job_id, now)


def charge_everywhere(store: JobStore) -> None:
    """Charge 1 order in the default namespace, 2 in `shop` and 3 in `news`, with and without a batch, at each time.

    Those of batches are enqueued by the API key `app`.
    """
    for orders, namespace in enumerate(("", "shop", "news"), start=1):
        scoped = store.in_namespace(namespace)
        for time, number, batch in ((t, n, b) for t in TIMES for n in range(orders) for b in ("spring", None)):
            source = "http:app" if batch else "library"
            charge(scoped, f"{time}-{number}-{batch}", batch, time, source=source)


def by_labels(rows: Iterable[Spending], *groups: str) -> Counter[tuple[str, ...]]:
    """Return the credits by these columns."""
    credits: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        credits[tuple(getattr(row, group) for group in groups)] += row.credits
    return credits


def test_all_reports_have_the_same_sum(store: JobStore) -> None:
    """In any columns, of all namespaces and of one: the sum of the rows is the total, and adding the rows of one column
    gives the report by the others."""
    charge_everywhere(store)
    for scoped, total in ((store, 144), (store.in_namespace(""), 24), (store.in_namespace("shop"), 48)):
        reports = {by: scoped.spending(SpendingQuery(frozenset(by))) for by in COMBINATIONS}
        assert reports[()] == [Spending(total)]
        for by, rows in reports.items():
            assert sum(row.credits for row in rows) == total
            assert all(row.credits > 0 for row in rows)
            for others in combinations(by, max(0, len(by) - 1)):
                assert by_labels(rows, *others) == by_labels(reports[others], *others)


def test_spending_is_reported_by_namespace_and_day(store: JobStore) -> None:
    """Each order counts on its day, in the namespace of its job."""
    charge_everywhere(store)
    first, second, third = (datetime.fromtimestamp(time, UTC).date().isoformat() for time in TIMES)

    rows = store.spending(SpendingQuery(frozenset({SpendingGroup.NAMESPACE, SpendingGroup.DAY})))

    assert [(row.namespace, row.day, row.credits) for row in rows] == [
        (namespace, day, credits)
        for namespace, credits in (("", 8), ("news", 24), ("shop", 16))
        for day in (first, second, third)
    ]


def test_spending_is_reported_by_batch(store: JobStore) -> None:
    """Batches of the same name in two namespaces are two; jobs without a batch have a row."""
    charge_everywhere(store)

    rows = store.spending(SpendingQuery(frozenset({SpendingGroup.BATCH})))

    assert [(row.namespace, row.batch, row.credits) for row in rows] == [
        (namespace, batch, credits)
        for namespace, credits in (("", 12), ("news", 36), ("shop", 24))
        for batch in ("", "spring")
    ]


def test_spending_is_reported_by_api_key(store: JobStore) -> None:
    """Of all keys to an operator, of its own keys to a client in a namespace; all other jobs have a row."""
    charge(store.in_namespace("shop"), "a", None, NOW, source="http:app")
    charge(store.in_namespace("shop"), "b", None, NOW, source="http:operator")
    charge(store.in_namespace("shop"), "c", None, NOW)
    assert store.api_keys.write(generate_key("app", [Scope.READ], "shop")[1], before="")
    assert store.api_keys.write(generate_key("operator", [Scope.READ])[1], before="")
    by_key = SpendingQuery(frozenset({SpendingGroup.KEY, SpendingGroup.DAY}))

    reports = {
        name: store.in_namespace(name).spending(by_key) if name else store.spending(by_key) for name in ("", "shop")
    }

    assert [(row.key, row.credits) for row in reports[""]] == [("", 4), ("app", 4), ("operator", 4)]
    assert [(row.key, row.credits) for row in reports["shop"]] == [("", 8), ("app", 4)]
    assert store.in_namespace("news").spending(by_key) == []


@pytest.mark.parametrize(
    ("by", "since", "credits"),
    [
        ((), 1, 48 + 48),
        (("day",), 1, 48 + 48),
        (("month",), 1, 48 + 48),
        (("namespace", "month"), 2, 48),
        ((), 3, 0),
    ],
)
def test_a_report_begins_with_a_day(store: JobStore, by: tuple[str, ...], since: int, credits: int) -> None:
    """Earlier orders are left out, also those of the same month."""
    charge_everywhere(store)
    days = [datetime.fromtimestamp(time, UTC).date() for time in (*TIMES, TIMES[-1] + DAY_S)]

    rows = store.spending(SpendingQuery(frozenset(map(SpendingGroup, by)), days[since]))

    assert sum(row.credits for row in rows) == credits
    if "month" in by:
        assert {row.month for row in rows} <= {f"{day:%Y-%m}" for day in days[since:]}


def test_months_are_kept_longer_than_days(store: JobStore, redis: Redis, prefix: str) -> None:
    """A report since the first day of a month needs no counters of days."""
    charge(store, "a", None, NOW)
    redis.hdel(f"{{{prefix}}}:counters", f"day.{int(NOW // DAY_S)}")
    first = datetime.fromtimestamp(NOW, UTC).date().replace(day=1)

    [row] = store.spending(SpendingQuery(frozenset({SpendingGroup.MONTH}), first))

    assert (row.month, row.credits) == (f"{first:%Y-%m}", 4)


def test_what_was_not_counted_by_month_has_a_row(store: JobStore, redis: Redis, prefix: str) -> None:
    """Charges of an earlier release and corrections by a repair are in the total, and so in every report."""
    charge(store, "a", None, NOW)
    redis.hset(f"{{{prefix}}}:counters", mapping={"music.credits": 15, "corrected.credits": -4})

    rows = store.spending(SpendingQuery(frozenset({SpendingGroup.MONTH})))

    assert [(row.month, row.credits) for row in rows] == [("", 11), (f"{datetime.fromtimestamp(NOW, UTC):%Y-%m}", 4)]
    assert store.spending(SpendingQuery(frozenset())) == [Spending(15)]


def test_spending_of_a_batch_is_reported_by_period(store: JobStore) -> None:
    """In all columns at once, and from a day on."""
    charge_everywhere(store)
    third = datetime.fromtimestamp(TIMES[2], UTC).date()
    by = frozenset({SpendingGroup.NAMESPACE, SpendingGroup.BATCH, SpendingGroup.DAY, SpendingGroup.MONTH})

    rows = store.in_namespace("shop").spending(SpendingQuery(by, third))

    assert rows == [Spending(8, "shop", None, batch, third.isoformat(), f"{third:%Y-%m}") for batch in ("", "spring")]


def test_a_batch_that_was_purged_is_in_the_row_without_a_batch(store: JobStore) -> None:
    """Its credits are kept in its namespace."""
    job_in_state(store, State.CANCELLED, voice(key="a", batch="old"))
    charge(store, "b", "spring", NOW)
    before = sum(row.credits for row in store.spending(SpendingQuery(frozenset())))
    list(store.purge(NOW + 90 * DAY_S, retention_s=DAY_S))

    rows = store.spending(SpendingQuery(frozenset({SpendingGroup.BATCH})))

    assert sum(row.credits for row in rows) == before
    assert "old" not in {row.batch for row in rows}


@pytest.mark.parametrize(
    ("by", "words"),
    [
        (["week"], "'week' is unknown; use namespace, key, batch, day, month"),
        (["key", "namespace"], "key and namespace cannot be combined"),
        (["key", "batch"], "key and batch cannot be combined"),
    ],
)
def test_columns_that_cannot_be_combined_are_refused(queue: VoiceQueue, by: list[str], words: str) -> None:
    """The error names them, and what to do."""
    with pytest.raises(ValueError, match=words):
        queue.spending(by)


def test_days_that_are_not_kept_are_refused(queue: VoiceQueue) -> None:
    """Instead of a sum that lacks them; the first day of a month needs no days."""
    with pytest.raises(ValueError, match=r"2020-05-02 is too long ago: days are kept from .* name the first day"):
        queue.spending(since=date(2020, 5, 2))
    with pytest.raises(ValueError, match="too long ago"):
        queue.spending(["day"], since=date(2020, 5, 1))
    assert queue.spending(["month"], since=date(2020, 5, 1)) == []
