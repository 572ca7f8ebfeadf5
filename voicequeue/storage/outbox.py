"""The leased outbox: work that a transition writes to Redis, kept there until a worker has done it.

An entry is *pending* until it is done or fails for good. The dispatcher hands out entries that are due, a worker claims
them, makes one attempt and records its outcome. An entry whose lease or claim expires is due again, so neither a lost
message nor a killed worker loses one. Every `now` is in Unix seconds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar, Generic, TypeVar, cast

from voicequeue.domain.namespaces import namespace_of
from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.storage.counters import read_counters
from voicequeue.texts import replace_unencodable

#: Entries that one page of a listing reads.
_PAGE = 500

Entry = TypeVar("Entry")


class Outbox(ABC, Generic[Entry]):
    """One outbox in Redis, within the scope of its keyspace. Safe to share between threads.

    Subclasses claim entries and record outcomes with scripts of their own; see scripts/lib/outbox.lua.
    """

    #: Prefix of its keys: `<name>:pending`, `<name>:leased`, `<name>:<failed_index>`, `<name>:heartbeats`.
    name: ClassVar[str]
    failed_index: ClassVar[str] = "failed"
    #: Default limit of entries that are handed out and not claimed yet.
    max_leased: ClassVar[int]

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis
        self._pending = keyspace.key(f"{self.name}:pending")
        self._failed = keyspace.key(f"{self.name}:{self.failed_index}")

    def lease(self, now: float, *, lease_s: float, limit: int | None = None) -> list[str]:
        """Return ids of entries that are due; no other call returns them for `lease_s` seconds.

        At most `limit` entries (default: `max_leased`) may be handed out and not claimed yet.
        """
        limit = self.max_leased if limit is None else limit
        return cast(
            list[str], self._space.run_script("outbox_lease", self.name, f"{now:.6f}", f"{now + lease_s:.6f}", limit)
        )

    def pending(self) -> Iterator[Entry]:
        """Yield pending entries by the time they are due, a page at a time."""
        return self._entries(self._pending)

    def failed(self) -> Iterator[Entry]:
        """Yield entries that failed for good, the oldest failure first, a page at a time."""
        return self._entries(self._failed)

    def get(self, ids: Sequence[str]) -> list[Entry]:
        """Return those of these entries that are pending or failed."""
        ids = list(map(replace_unencodable, ids))
        with self._redis.pipeline(transaction=False) as pipe:
            for entry_id in ids:
                self._read(pipe, entry_id)
                pipe.zscore(self._pending, entry_id)
                pipe.zscore(self._failed, entry_id)
            replies = iter(pipe.execute())
        entries = map(self._entry, ids, replies, replies, replies)
        return [entry for entry in entries if entry is not None]

    def _entries(self, key: str) -> Iterator[Entry]:
        ids = self._space.pages(key)
        while page := list(islice(ids, _PAGE)):
            yield from self.get(page)

    @abstractmethod
    def _read(self, pipe: Any, entry_id: str) -> None:
        """Add the one command to `pipe` that reads the entry's record."""

    @abstractmethod
    def _read_owner(self, pipe: Any, entry_id: str) -> None:
        """Add the one command to `pipe` that reads the batch of the entry, with its namespace."""

    @abstractmethod
    def _entry(self, entry_id: str, record: Any, due: float | None, failed_at: float | None) -> Entry | None:
        """Return the entry from the reply to `_read` and its scores; None if it is out of scope, or neither pending nor
        failed."""

    def by_namespace(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """Return those of the ids that are in scope, by their namespace. Unknown ones are in the default one."""
        ids = list(map(replace_unencodable, ids))
        with self._redis.pipeline(transaction=False) as pipe:
            for entry_id in ids:
                self._read_owner(pipe, entry_id)
            owners = pipe.execute()
        parts: dict[str, list[str]] = {}
        for entry_id, owner in zip(ids, owners, strict=True):
            if self._space.scope.contains(owner):
                parts.setdefault(namespace_of(owner), []).append(entry_id)
        return parts

    def _owned(self, ids: Sequence[str]) -> list[str]:
        """Return those of the ids that are in scope."""
        if self._space.scope.is_all:
            return list(map(replace_unencodable, ids))
        return self.by_namespace(ids).get(self._space.scope.namespace, [])

    def _owned_scores(self, key: str) -> list[float]:
        """Return the scores of the entries of an index that are in scope."""
        entries = dict(cast(Iterator[tuple[str, float]], self._redis.zscan_iter(key, count=_PAGE)))
        ids = iter(entries)
        pages = iter(lambda: list(islice(ids, _PAGE)), [])
        return [entries[entry_id] for page in pages for entry_id in self._owned(page)]

    def _counts(self, workers_since: float, *counters: str) -> list[int]:
        """Count entries that are pending, blocked by an earlier one, and failed; read these counters; count workers."""
        if self._space.scope.is_all:
            return self._counts_of_all(workers_since, *counters)
        totals, due = read_counters(self._space), self._owned_scores(self._pending)
        failed = len(self._owned_scores(self._failed))
        workers = self._redis.zcount(self._space.key(f"{self.name}:heartbeats"), f"({workers_since}", "+inf")
        return [len(due), due.count(float("inf")), failed, *(totals[counter] for counter in counters), workers]

    def _counts_of_all(self, workers_since: float, *counters: str) -> list[int]:
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zcard(self._pending)
            pipe.zcount(self._pending, "+inf", "+inf")
            pipe.zcard(self._failed)
            for counter in counters:
                pipe.hget(self._space.key("counters"), counter)
            pipe.zcount(self._space.key(f"{self.name}:heartbeats"), f"({workers_since}", "+inf")
            return [int(reply or 0) for reply in pipe.execute()]
