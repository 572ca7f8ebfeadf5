"""The counters of what a caller sees: of a batch, of a namespace, or of the whole queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import cast

from voicequeue.domain.stage import Stage
from voicequeue.storage.connection.keyspace import Keyspace

#: Fields of the counters of all jobs that hold what was ever spent.
SPENT = tuple(f"{name}.credits" for name in (*Stage, "corrected"))


def read_counters(space: Keyspace, batch: str | None = None) -> Counter[str]:
    """Return `credits`, `reserved`, `queued_credits`, `failed.<code>`, `day.<n>` and what was delivered and archived.

    Those of the given batch, or of all jobs in scope.
    """
    scope = space.scope
    if batch is not None:
        return _numbers(_read(space, [f"batch:{scope.qualify(batch)}"])[0])
    if scope.namespace and not scope.is_all:
        return _numbers(_read(space, [f"namespace:{scope.namespace}"])[0])
    namespaces = [] if scope.is_all else cast(list[str], space.redis.zrange(space.key("namespaces"), 0, -1))
    queue, backlog, *others = _read(space, ["counters", "backlog", *(f"namespace:{name}" for name in namespaces)])
    counts = _numbers(queue)
    counts["credits"] = sum(counts[name] for name in SPENT)
    counts["queued_credits"] = int(backlog.get("queued_credits", 0))
    for other in others:  # the default namespace has what no other has
        counts.subtract(_numbers(other))
    return counts


def failures_by_code(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the number of failed jobs by failure code."""
    failed = {name.removeprefix("failed."): count for name, count in counts.items() if name.startswith("failed.")}
    return {code: count for code, count in failed.items() if count > 0}


def _read(space: Keyspace, names: list[str]) -> list[Mapping[str, str]]:
    with space.redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hgetall(space.key(name))
        return cast(list[Mapping[str, str]], pipe.execute())


def _numbers(record: Mapping[str, str]) -> Counter[str]:
    names = {"credits", "reserved", "queued_credits", "callbacks.delivered", "archive.files", "archive.jobs", *SPENT}
    return Counter(
        {name: int(value) for name, value in record.items() if name in names or name.startswith(("failed.", "day."))}
    )
