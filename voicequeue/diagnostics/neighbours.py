"""What else lies in the Redis database of a queue: other queues, other programs, and jobs that no worker will read.

What is there (`look`) and what it means (`remarks`) are apart; the latter is pure. Only reads.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from redis import Redis
from redis.client import NEVER_DECODE
from redis.exceptions import NoPermissionError

from voicequeue.diagnostics.checkup import GONE_S, Level, Remark, fine
from voicequeue.storage.celery_queues import INTAKE, QUEUE_NAMES
from voicequeue.storage.heartbeats import KINDS, Pulses
from voicequeue.storage.keyspace import PREFIX, Keyspace, celery_root

#: Keys that one SCAN looks at: less than a millisecond of Redis's time.
PAGE = 1_000

#: The search ends after that long (seconds); SCAN visits keys in no order, so what it has seen is a fair sample.
SEARCH_S = 0.5

#: Keys of other programs that are looked into, and other queues that are described, at most.
LOOKED_INTO = 100

#: The task that puts a job in; tasks/enqueue.py names it.
_ENQUEUE = b'"voicequeue.enqueue"'

#: A key that only queues like this one have.
_OF_A_QUEUE = re.compile(rf"\{{({PREFIX})\}}:(?:celery:(.+)|job:|(?:[a-z]+:)?pulses$)", re.DOTALL)

#: kombu's tables of the queues behind an exchange; Celery's exchanges are named after their queues.
_BINDING = re.compile(r"_kombu\.binding(?:_permanent)?\.(.+)|_kombu\.binding_deadlines$|unacked")

#: What Celery has beside the queues of its tasks.
_CELERYS_OWN = ("celeryev", "pidbox")

#: kombu adds it to the name of a queue for messages of a priority.
_PRIORITY = re.compile(r"\x06\x16\d$")


@dataclass(frozen=True, slots=True)
class OtherQueue:
    """Another queue in the same database: how many workers were heard (None: Redis does not let this user see that),
    and whether it has more than messages."""

    prefix: str
    workers: int | None = None
    has_records: bool = True

    def __str__(self) -> str:
        return self.prefix if self.workers is None else f"{self.prefix} ({self.workers} workers alive)"


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What was seen beside a queue's own keys; `intake` is the key to which its senders write.

    `unread` counts the messages in each list that holds jobs and that no worker reads; `celery` names the queues of
    other Celery applications, and `foreign` the keys of other programs. `seen` of `keys` keys were looked at.
    `databases` counts the keys in each other database of this Redis.
    """

    intake: str
    queues: Sequence[OtherQueue] = ()
    unread: Mapping[str, int] = field(default_factory=dict)
    celery: Collection[str] = ()
    foreign: Collection[str] = ()
    seen: int = 0
    keys: int = 0
    databases: Mapping[str, int] = field(default_factory=dict)


def look(redis: Redis, prefix: str) -> Neighbours:
    """Look at the keys of the database, for about half a second at most. Raises RedisError."""
    keys = _Keys(prefix)
    for page in _pages(redis):
        keys.sort(page)
    foreign = keys.of_other_programs()
    unread = _unread(redis, keys.unexpected | foreign)
    here = f"db{redis.connection_pool.connection_kwargs.get('db') or 0}"
    databases = redis.info("keyspace")
    return Neighbours(
        f"{celery_root(prefix)}{INTAKE}",
        queues=[_described(redis, prefix) for prefix in islice(sorted(keys.queues), LOOKED_INTO)],
        unread=unread,
        celery=keys.celery - unread.keys(),
        foreign=foreign - unread.keys() - keys.celery,
        seen=keys.seen,
        keys=redis.dbsize(),
        databases={name: counts["keys"] for name, counts in databases.items() if name != here},
    )


def _pages(redis: Redis) -> Iterator[list[str]]:
    """Keys as text; those of other programs may be any bytes."""
    enough, cursor = time.monotonic() + SEARCH_S, 0
    while True:
        cursor, page = _raw(redis, "SCAN", cursor, "COUNT", PAGE)
        yield [key.decode(errors="backslashreplace") for key in page]
        if not cursor or time.monotonic() > enough:
            return


def _raw(redis: Redis, *command: str | int) -> Any:
    """Ask for something that need not be text."""
    return redis.execute_command(*command, **{NEVER_DECODE: True})  # type: ignore[no-untyped-call]


class _Keys:
    """Keys, sorted by whose they are; `unexpected` are in this queue's part for Celery, and no worker reads them."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.seen = 0
        self.queues: set[str] = set()
        self.unexpected: set[str] = set()
        self.celery: set[str] = set()
        self._rest: set[str] = set()

    def of_other_programs(self) -> set[str]:
        """Return the keys that belong to no queue and to no Celery application."""
        roots = tuple(f"{{{prefix}}}:" for prefix in self.queues)
        return {key for key in self._rest if not key.startswith(roots)}

    def sort(self, keys: Iterable[str]) -> None:
        """Note whose each of these keys is."""
        for key in keys:
            self.seen += 1
            queue = _OF_A_QUEUE.match(key)
            if queue and queue[1] != self._prefix:
                self.queues.add(queue[1])
            elif queue and queue[2] and _PRIORITY.sub("", queue[2]) not in QUEUE_NAMES:
                self.unexpected.add(key)
            elif binding := _BINDING.search(key):
                name = binding[1] or ""
                # A sender without a prefix of its own names a queue of ours by its whole key.
                if name and not name.endswith(_CELERYS_OWN) and not name.startswith(celery_root(self._prefix)):
                    self.celery.add(name)
            elif not key.startswith(f"{{{self._prefix}}}:"):
                self._rest.add(key)


def _unread(redis: Redis, keys: Iterable[str]) -> dict[str, int]:
    """How many messages are in each of these keys that is a list whose next message is a job."""
    asked = list(islice(sorted(keys), LOOKED_INTO))
    with redis.pipeline(transaction=False) as pipe:
        for key in asked:
            pipe.type(key)
        # A user of this queue alone may not ask for the type of other keys.
        kinds = pipe.execute(raise_on_error=False)
    lists = [key for key, kind in zip(asked, kinds, strict=True) if kind == "list"]
    return {key: redis.llen(key) for key in lists if _ENQUEUE in (_raw(redis, "LINDEX", key, -1) or b"")}


def _described(redis: Redis, prefix: str) -> OtherQueue:
    space = Keyspace(redis, prefix)
    records = [space.key(name) for name in ("events", *KINDS.values())]
    seconds, _ = redis.time()
    try:
        workers = Pulses(space, "worker").since(seconds - GONE_S)
        return OtherQueue(prefix, len(workers), bool(redis.exists(*records)))
    except NoPermissionError:
        return OtherQueue(prefix)


# ── what it means ─────────────────────────────────────────────────────────────────────────────────

_OF_ITS_OWN = (
    "give this queue a database of its own (REDIS_URL), or better a Redis: no keys mix, but they share the memory, "
    "and FLUSHDB deletes both"
)


def remarks(found: Neighbours) -> Iterator[Remark]:
    """What is to be said of it."""
    yield from _of_queues(found)
    for key, count in sorted(found.unread.items()):
        yield Remark(
            "database",
            Level.WARNING,
            f"{count:,} messages with jobs lie in {_shown(key)}, which no worker reads",
            f"their sender must use the key {found.intake} (docs/messages.md); LMOVE moves what is there",
        )
    for what, names in (
        ("queues of another Celery application", found.celery),
        ("keys of other programs", found.foreign),
    ):
        if names:
            text = f"{len(names):,} {what} are in this database: {_some(names)}"
            yield Remark("database", Level.NOTE, text, _OF_ITS_OWN)
    if found.databases:
        counts = ", ".join(f"{name}: {keys:,} keys" for name, keys in sorted(found.databases.items()))
        yield fine("database", f"other databases share this Redis's memory ({counts})")


def _of_queues(found: Neighbours) -> Iterator[Remark]:
    looked_at = f" ({found.seen:,} of {found.keys:,} keys were looked at)" if found.seen < found.keys else ""
    others = [str(queue) for queue in found.queues if queue.has_records]
    if others:
        yield fine("database", f"it holds other queues, apart from this one: {', '.join(others)}{looked_at}")
    elif not (found.queues or found.unread or found.celery or found.foreign):
        yield fine("database", f"this queue has it to itself{looked_at}")
    for queue in found.queues:
        if not queue.has_records:
            what = f"messages were sent to a queue {queue.prefix}, which has neither jobs nor processes"
            todo = f"if their sender meant this queue, its key is {found.intake} (docs/messages.md)"
            yield Remark("database", Level.WARNING, what, todo)


def _some(names: Collection[str], count: int = 3) -> str:
    return ", ".join(map(_shown, sorted(names)[:count])) + (", …" if len(names) > count else "")


def _shown(key: str) -> str:
    """A key of another program, short and without what a terminal obeys."""
    text = key.encode("unicode_escape").decode()
    return text if len(text) <= 60 else f"{text[:59]}…"
