"""Spending in Redis: the counters of all jobs, of namespaces, API keys and batches, by day and month.

The counters of one report are read one after the other, those of the whole at the end. What the sum of the others lacks
of them is in the row without a name, so that the rows of each report have the same sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import cast

from voicequeue.domain.namespaces import DEFAULT, index_of, split
from voicequeue.domain.spending import Spending, SpendingGroup, SpendingQuery
from voicequeue.storage.budgets import key_names
from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.storage.counters import SPENT

_PAGE = 200
_TOTAL = ("credits", *SPENT)
_EPOCH = date(1970, 1, 1)


def read_spending(space: Keyspace, query: SpendingQuery) -> list[Spending]:
    """Return the rows of a report of what is in scope, by their columns; one row without columns if there is none."""
    rows = [
        Spending(credits, **labels, **_period_labels(query, period))
        for labels, amounts in _owners(space, query)
        for period, credits in amounts.items()
        if credits
    ]
    return sorted(rows, key=lambda row: row.labels) if rows or query.by else [Spending(0)]


def _owners(space: Keyspace, query: SpendingQuery) -> Iterator[tuple[dict[str, str], Counter[str]]]:
    """Yield the labels of each owner of a row, and its credits by period."""
    if SpendingGroup.KEY in query.by:
        names = {name: f"key:{name}" for name in _keys(space)}
        yield from _with_rest("key", _read(space, names, query), _scope_total(space, query))
    elif SpendingGroup.BATCH in query.by:
        batches = {namespace: _read(space, _batches(space, namespace), query) for namespace in space.namespaces()}
        for namespace, total in _by_namespace(space, query).items():
            for labels, amounts in _with_rest("batch", batches.get(namespace, {}), total):
                yield labels | {"namespace": namespace}, amounts
    elif SpendingGroup.NAMESPACE in query.by:
        for namespace, amounts in _by_namespace(space, query).items():
            yield {"namespace": namespace}, amounts
    else:
        yield {}, _scope_total(space, query)


def _with_rest(
    column: str, owners: Mapping[str, Counter[str]], total: Counter[str]
) -> Iterator[tuple[dict[str, str], Counter[str]]]:
    """Yield the credits of each owner, and without a name those that the total has in addition."""
    rest = total.copy()
    for name, amounts in owners.items():
        rest.subtract(amounts)
        yield {column: name}, amounts
    yield {column: ""}, rest


def _scope_total(space: Keyspace, query: SpendingQuery) -> Counter[str]:
    if not space.scope.is_all:
        return _by_namespace(space, query)[space.scope.namespace]
    return _read(space, {"": "counters"}, query)[""]


def _by_namespace(space: Keyspace, query: SpendingQuery) -> dict[str, Counter[str]]:
    """Return the credits of each namespace in scope; the default one has what no other has."""
    scope = space.scope
    if scope.namespace != DEFAULT and not scope.is_all:
        return _read(space, {scope.namespace: f"namespace:{scope.namespace}"}, query)
    others = cast(list[str], space.redis.zrange(space.key("namespaces"), 0, -1))
    named = _read(space, {name: f"namespace:{name}" for name in others}, query)
    default = _read(space, {"": "counters"}, query)[""]
    for amounts in named.values():
        default.subtract(amounts)
    return {DEFAULT: default} | (named if scope.is_all else {})


def _batches(space: Keyspace, namespace: str) -> dict[str, str]:
    """Return the counters of the batches of a namespace, by name."""
    batches = cast(list[str], space.redis.zrange(space.key(index_of("batches", namespace)), 0, -1))
    return {split(batch)[1]: f"batch:{batch}" for batch in batches}


def _keys(space: Keyspace) -> list[str]:
    """Return the names of the API keys that enqueued jobs; in one namespace, of those in Redis that belong to it."""
    owners = cast(list[str], space.redis.zrange(space.key("owners"), 0, -1))
    names = [owner.removeprefix("key/") for owner in owners if owner.startswith("key/")]
    return names if space.scope.is_all else list(set(names) & set(key_names(space)))


# ── the counters of one owner ─────────────────────────────────────────────────────────────────────


def _read(space: Keyspace, names: Mapping[str, str], query: SpendingQuery) -> dict[str, Counter[str]]:
    """Return the credits by period in the counters of each owner; by '' what was not counted by period."""
    amounts, remaining = {}, iter(names.items())
    while page := list(islice(remaining, _PAGE)):
        with space.redis.pipeline(transaction=False) as pipe:
            for _, counters in page:
                pipe.hgetall(space.key(counters)) if query.counted_by else pipe.hmget(space.key(counters), _TOTAL)
            for (name, _), reply in zip(page, pipe.execute(), strict=True):
                record = reply if query.counted_by else dict(zip(_TOTAL, reply, strict=True))
                amounts[name] = _amounts(record, query)
    return amounts


def _amounts(record: Mapping[str, str | None], query: SpendingQuery) -> Counter[str]:
    amounts: Counter[str] = Counter()
    for period, credits in _counted(record, query):
        amounts[_label(query, period)] += credits
    if query.since is None:
        total = sum(int(record.get(field) or 0) for field in _TOTAL)
        amounts[""] += total - sum(amounts.values())
    return amounts


def _counted(record: Mapping[str, str | None], query: SpendingQuery) -> Iterable[tuple[date, int]]:
    """Yield the first day of each counted period since the one of the query, and its credits."""
    for field, credits in record.items():
        kind, _, number = field.partition(".")
        if kind != query.counted_by or not number.isdecimal():
            continue
        first = (
            _EPOCH + timedelta(days=int(number))
            if kind == SpendingGroup.DAY
            else datetime.strptime(number, "%Y%m").replace(tzinfo=UTC).date()
        )
        if query.since is None or first >= query.since:
            yield first, int(credits or 0)


def _label(query: SpendingQuery, first: date) -> str:
    """Return the label of the row that a period is counted in."""
    if query.period is None:
        return ""
    return first.isoformat() if query.period is SpendingGroup.DAY else f"{first:%Y-%m}"


def _period_labels(query: SpendingQuery, period: str) -> dict[str, str]:
    return {group: period[:7] if group is SpendingGroup.MONTH else period for group in _PERIODS if group in query.by}


_PERIODS = (SpendingGroup.DAY, SpendingGroup.MONTH)
