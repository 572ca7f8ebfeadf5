"""The keys of Celery's queues that have another type than Celery needs, which ends every worker at each start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from redis import Redis

from voicequeue.storage.connection.keyspace import Keyspace

#: kombu keeps messages of a priority beside those without.
_PRIORITIES = ("", *(f"\x06\x16{priority}" for priority in (3, 6, 9)))


@dataclass(frozen=True, slots=True)
class WrongType:
    """A key of a queue, the type that it has and the one that Celery needs."""

    queue: str
    key: str
    actual: str
    expected: str

    def __str__(self) -> str:
        return f"the key {self.key} is a {self.actual} and must be a {self.expected}: no worker can work"

    @property
    def cure(self) -> str:
        """Return what an operator does about it."""
        return f"delete the key (DEL {self.key}): nothing in it is a message. Change the password that wrote it"


def wrong_types(redis: Redis, space: Keyspace, queues: Sequence[str]) -> Iterator[WrongType]:
    """Yield each key of these queues, and of the messages that workers hold, that has a wrong type."""
    lists = {f"{queue}{priority}": (queue, "list") for queue in queues for priority in _PRIORITIES}
    expected = {"unacked": ("", "hash"), "unacked_index": ("", "zset"), **lists}
    with redis.pipeline(transaction=False) as pipe:
        for name in expected:
            pipe.type(space.key(f"celery:{name}"))
        types = pipe.execute()
    for (name, (queue, wanted)), actual in zip(expected.items(), types, strict=True):
        if actual not in ("none", wanted):
            yield WrongType(queue, space.key(f"celery:{name}").replace("\x06\x16", "\\x06\\x16"), actual, wanted)
