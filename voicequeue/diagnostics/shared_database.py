"""Find what shares the Redis database of a queue: other queues, other programs, and jobs that no worker reads.

`inspect` collects the facts; `results` evaluates them and is pure. It only reads.
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
from redis.exceptions import NoPermissionError, ResponseError

from voicequeue.diagnostics.check_result import CheckResult, Level, passed
from voicequeue.storage.celery_queues import INTAKE, QUEUE_NAMES
from voicequeue.storage.connection.keyspace import PREFIX, Keyspace, celery_root
from voicequeue.storage.heartbeats import KINDS, Heartbeats
from voicequeue.texts import pluralize

#: The COUNT of one SCAN: less than a millisecond of Redis's time.
PAGE = 1_000

#: The time limit of the search (seconds). SCAN visits keys in no order, so those it has visited are a fair sample.
SEARCH_S = 0.5

#: The most keys of other programs that are read, and the most other queues that are described.
INSPECTED_MAX = 100

#: The task that enqueues a job; defined in tasks/enqueue.py.
_ENQUEUE = b'"voicequeue.enqueue"'

#: A key that only voicequeue writes.
_OF_A_QUEUE = re.compile(rf"\{{({PREFIX})\}}:(?:celery:(.+)|job:|(?:{'|'.join(KINDS.values())})$)", re.DOTALL)

#: kombu's bindings of queues to an exchange; Celery's exchanges have the names of their queues.
_BINDING = re.compile(r"_kombu\.binding(?:_permanent)?\.(.+)|_kombu\.binding_deadlines$|unacked")

#: Celery's own exchanges, beside the queues of its tasks.
_CELERYS_OWN = ("celeryev", "pidbox")

#: The suffix that kombu adds to a queue's key for messages with a priority.
_PRIORITY = re.compile(r"\x06\x16\d$")


@dataclass(frozen=True, slots=True)
class OtherQueue:
    """Another queue in the same database.

    `running_workers`: its running workers, None if this Redis user may not see them. `has_records`: it has more than
    messages.
    """

    prefix: str
    running_workers: int | None = None
    has_records: bool = True

    def __str__(self) -> str:
        if self.running_workers is None:
            return self.prefix
        return f"{self.prefix} ({pluralize(self.running_workers, 'worker')} alive)"


@dataclass(frozen=True, slots=True)
class SharedDatabase:
    """The contents of a database beside a queue's own keys.

    `intake`: the key that senders of jobs write to. `unread`: lists of jobs that no worker reads, with their number of
    messages. `celery`: the queues of other Celery applications. `foreign`: the keys of other programs. `inspected` of
    `total_keys` keys were inspected. `databases`: the number of keys in each other database of this Redis.
    """

    intake: str
    queues: Sequence[OtherQueue] = ()
    unread: Mapping[str, int] = field(default_factory=dict)
    celery: Collection[str] = ()
    foreign: Collection[str] = ()
    inspected: int = 0
    total_keys: int = 0
    databases: Mapping[str, int] = field(default_factory=dict)


def inspect(redis: Redis, prefix: str) -> SharedDatabase:
    """Inspect the keys of the database, for about half a second at most. Raises RedisError."""
    keys = _Keys(prefix)
    for page in _pages(redis):
        keys.classify(page)
    foreign = keys.of_other_programs()
    unread = _unread(redis, keys.unexpected | foreign)
    here = f"db{redis.connection_pool.connection_kwargs.get('db') or 0}"
    return SharedDatabase(
        f"{celery_root(prefix)}{INTAKE}",
        queues=[_described(redis, prefix) for prefix in islice(sorted(keys.queues), INSPECTED_MAX)],
        unread=unread,
        celery=keys.celery - unread.keys(),
        foreign=foreign - unread.keys() - keys.celery,
        inspected=keys.seen,
        total_keys=redis.dbsize(),
        databases={name: counts["keys"] for name, counts in _databases(redis).items() if name != here},
    )


def _databases(redis: Redis) -> dict[str, Any]:
    """Return the databases of the server, none if the user has no right to INFO; the check of the server reports it."""
    try:
        return redis.info("keyspace")
    except ResponseError:
        return {}


def _pages(redis: Redis) -> Iterator[list[str]]:
    """Yield pages of keys as text; those of other programs may be any bytes."""
    deadline, cursor = time.monotonic() + SEARCH_S, 0
    while True:
        cursor, page = _raw(redis, "SCAN", cursor, "COUNT", PAGE)
        yield [key.decode(errors="backslashreplace") for key in page]
        if not cursor or time.monotonic() > deadline:
            return


def _raw(redis: Redis, *command: str | int) -> Any:
    """Run a command whose reply may not be text."""
    return redis.execute_command(*command, **{NEVER_DECODE: True})  # type: ignore[no-untyped-call]


class _Keys:
    """Keys, classified by their owner. `unexpected`: Celery queues of this queue that no worker reads."""

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

    def classify(self, keys: Iterable[str]) -> None:
        """Classify more keys."""
        for key in keys:
            self.seen += 1
            queue = _OF_A_QUEUE.match(key)
            if queue and queue[1] != self._prefix:
                self.queues.add(queue[1])
            elif queue and queue[2] and _PRIORITY.sub("", queue[2]) not in QUEUE_NAMES:
                self.unexpected.add(key)
            elif binding := _BINDING.search(key):
                name = binding[1] or ""
                # A sender without a key prefix uses the whole key of our queue as its name.
                if name and not name.endswith(_CELERYS_OWN) and not name.startswith(celery_root(self._prefix)):
                    self.celery.add(name)
            elif not key.startswith(f"{{{self._prefix}}}:"):
                self._rest.add(key)


def _unread(redis: Redis, keys: Iterable[str]) -> dict[str, int]:
    """Return the number of messages in each of these keys that is a list whose next message is a job."""
    candidates = list(islice(sorted(keys), INSPECTED_MAX))
    with redis.pipeline(transaction=False) as pipe:
        for key in candidates:
            pipe.type(key)
        # The Redis user may be limited to this queue's keys.
        kinds = pipe.execute(raise_on_error=False)
    lists = [key for key, kind in zip(candidates, kinds, strict=True) if kind == "list"]
    return {key: redis.llen(key) for key in lists if _ENQUEUE in (_raw(redis, "LINDEX", key, -1) or b"")}


def _described(redis: Redis, prefix: str) -> OtherQueue:
    space = Keyspace(redis, prefix)
    records = [space.key(name) for name in ("events", *KINDS.values())]
    seconds, _ = redis.time()
    try:
        workers = Heartbeats(space, "worker").alive(seconds)
        return OtherQueue(prefix, len(workers), bool(redis.exists(*records)))
    except NoPermissionError:
        return OtherQueue(prefix)


# ── evaluation ────────────────────────────────────────────────────────────────────────────────────

_SEPARATE = (
    "give this queue its own database (REDIS_URL), or better its own Redis: the keys do not conflict, but they share "
    "the memory, and FLUSHDB deletes both"
)


def results(database: SharedDatabase) -> Iterator[CheckResult]:
    """Evaluate the facts."""
    yield from _of_queues(database)
    for key, count in sorted(database.unread.items()):
        yield CheckResult(
            "database",
            Level.WARNING,
            f"{pluralize(count, 'message')} with jobs in {_shown(key)}, which no worker reads",
            f"their sender must use the key {database.intake} (docs/guides/messages.md); move the messages with LMOVE",
        )
    for noun, origin, names in (
        ("queue", "of another Celery application", database.celery),
        ("key", "of other programs", database.foreign),
    ):
        if names:
            are = "is" if len(names) == 1 else "are"
            text = f"{pluralize(len(names), noun)} {origin} {are} in this database: {_some(names)}"
            yield CheckResult("database", Level.NOTE, text, _SEPARATE)
    if database.databases:
        counts = ", ".join(f"{name}: {pluralize(keys, 'key')}" for name, keys in sorted(database.databases.items()))
        yield passed("database", f"other databases share this Redis's memory ({counts})")


def _of_queues(database: SharedDatabase) -> Iterator[CheckResult]:
    sample = (
        f" ({database.inspected:,} of {database.total_keys:,} keys were inspected)"
        if database.inspected < database.total_keys
        else ""
    )
    others = [str(queue) for queue in database.queues if queue.has_records]
    if others:
        yield passed("database", f"it contains other queues beside this one: {', '.join(others)}{sample}")
    elif not (database.queues or database.unread or database.celery or database.foreign):
        yield passed("database", f"only this queue uses it{sample}")
    for queue in database.queues:
        if not queue.has_records:
            what = f"messages were sent to a queue {queue.prefix}, which has neither jobs nor processes"
            todo = f"if they were meant for this queue, its key is {database.intake} (docs/guides/messages.md)"
            yield CheckResult("database", Level.WARNING, what, todo)


def _some(names: Collection[str], count: int = 3) -> str:
    return ", ".join(map(_shown, sorted(names)[:count])) + (", …" if len(names) > count else "")


def _shown(key: str) -> str:
    """Return a key of another program, shortened and with control characters escaped."""
    text = key.encode("unicode_escape").decode()
    return text if len(text) <= 60 else f"{text[:59]}…"
