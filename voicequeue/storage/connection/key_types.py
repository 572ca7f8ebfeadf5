"""Keys of Celery's queues whose type is not the one that Celery needs, which ends every worker at its start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from redis import Redis

from voicequeue.storage.connection.keyspace import Keyspace

#: kombu stores the messages of each priority under a key of their own.
_PRIORITIES = ("", *(f"\x06\x16{priority}" for priority in (3, 6, 9)))


@dataclass(frozen=True, slots=True)
class WrongType:
    """A key of a queue, its type and the type that Celery needs."""

    queue: str
    key: str
    actual: str
    expected: str

    def __str__(self) -> str:
        return f"the key {self.key} is a {self.actual} and must be a {self.expected}: no worker can run"

    @property
    def cure(self) -> str:
        """The advice for an operator."""
        return f"delete the key (DEL {self.key}): it holds no messages. Change the password that wrote it"


def wrong_types(redis: Redis, space: Keyspace, queues: Sequence[str]) -> Iterator[WrongType]:
    """Yield each key of these queues, and of unacknowledged messages, that has a wrong type."""
    lists = {f"{queue}{priority}": (queue, "list") for queue in queues for priority in _PRIORITIES}
    expected = {"unacked": ("", "hash"), "unacked_index": ("", "zset"), **lists}
    with redis.pipeline(transaction=False) as pipe:
        for name in expected:
            pipe.type(space.key(f"celery:{name}"))
        types = pipe.execute()
    for (name, (queue, required)), actual in zip(expected.items(), types, strict=True):
        if actual not in ("none", required):
            yield WrongType(queue, space.key(f"celery:{name}").replace("\x06\x16", "\\x06\\x16"), actual, required)
