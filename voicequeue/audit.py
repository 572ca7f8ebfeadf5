"""Whether the indexes and counters in Redis agree with the job records, which are the truth.

Reads only, a page at a time, so that it may run beside the workers; what moves while it reads may
show as a finding that is none the next time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from redis import Redis

from voicequeue.job import IN_FLIGHT, State

_PAGE = 1000

#: What of a record the indexes follow.
_FIELDS = ("state", "batch", "credits")

#: What of a batch is counted from its records.
_COUNTED = {*State, "credits"}


@dataclass(slots=True)
class _Truth:
    """What the records say."""

    states: dict[str, set[str]] = field(default_factory=lambda: {state: set() for state in State})
    batches: dict[str, Counter[str]] = field(default_factory=dict)
    credits: int = 0


def audit(redis: Redis, prefix: str) -> list[str]:
    """Every disagreement, in words; none is what one hopes for."""
    root = f"{{{prefix}}}:"
    truth = _truth(redis, root)
    findings = [finding for state in State for finding in _index(redis, root, state, truth)]
    flying = set().union(*(truth.states[state] for state in IN_FLIGHT))
    findings += _compared("flight", _members(redis, f"{root}flight"), flying)
    for batch, counted in truth.batches.items():
        findings += _batch(redis, root, batch, counted)
    spent = cast(list[str | None], redis.hmget(f"{root}counters", ["voice.credits", "music.credits"]))
    if (total := sum(int(amount or 0) for amount in spent)) != truth.credits:
        findings.append(f"counters: {total} credits spent, the records say {truth.credits}")
    return findings


def _truth(redis: Redis, root: str) -> _Truth:
    truth = _Truth()
    for job_id, (state, batch, credits) in _records(redis, root):
        truth.states[state].add(job_id)
        truth.credits += int(credits or 0)
        if batch:
            counted = truth.batches.setdefault(batch, Counter())
            counted[state] += 1
            counted["credits"] += int(credits or 0)
    return truth


def _records(redis: Redis, root: str) -> Iterator[tuple[str, list[Any]]]:
    page: list[str] = []
    # Braces of the hash tag mean nothing to a pattern; brackets would.
    for key in redis.scan_iter(match=f"{root}job:*", count=_PAGE):
        page.append(key)
        if len(page) == _PAGE:
            yield from _read(redis, root, page)
            page = []
    yield from _read(redis, root, page)


def _read(redis: Redis, root: str, keys: list[str]) -> Iterator[tuple[str, list[Any]]]:
    with redis.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hmget(key, _FIELDS)
        found = pipe.execute()
    return ((key.removeprefix(f"{root}job:"), values) for key, values in zip(keys, found, strict=True))


def _index(redis: Redis, root: str, state: State, truth: _Truth) -> list[str]:
    if state is State.QUEUED:
        lines = list(redis.scan_iter(match=f"{root}line:*", count=_PAGE))
        found: set[str] = set().union(*(_members(redis, line) for line in lines))
        return _compared("line", found, truth.states[state])
    return _compared(f"state:{state}", _members(redis, f"{root}state:{state}"), truth.states[state])


def _members(redis: Redis, key: str) -> set[str]:
    return {member for member, _ in redis.zscan_iter(key, count=_PAGE)}


def _compared(name: str, found: set[str], expected: set[str]) -> list[str]:
    findings = [f"{name}: job {job_id} is missing" for job_id in sorted(expected - found)]
    return findings + [f"{name}: job {job_id} does not belong there" for job_id in sorted(found - expected)]


def _batch(redis: Redis, root: str, batch: str, counted: Counter[str]) -> list[str]:
    written = cast(dict[str, str], redis.hgetall(f"{root}batch:{batch}"))
    found = Counter({name: int(value) for name, value in written.items() if name in _COUNTED and int(value)})
    if found == Counter({name: count for name, count in counted.items() if count}):
        return []
    return [f"batch {batch}: counts {dict(found)}, the records say {dict(counted)}"]
