"""Rejected messages, stored so that an operator can inform their sender."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from typing import TYPE_CHECKING, Any, cast

from voicequeue.domain.job import to_iso8601
from voicequeue.domain.namespaces import index_of
from voicequeue.domain.newer_records import known_fields
from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.texts import replace_unencodable, replace_unencodable_in_json

if TYPE_CHECKING:
    from voicequeue.domain import operator_schemas

#: The newest messages are stored, up to this number and total size; the newest one in any case.
MESSAGES_MAX = 1_000
BYTES_MAX = 4 << 20

#: The job is stored up to this many characters of JSON; the other fields are shorter.
JOB_MAX = 16_000
_TEXT_MAX = 2_000
_NAME_MAX = 200

#: Messages that one call reads.
_READ = 50

#: Fields of a job that are stored also if the job is too long.
_IDENTIFYING = ("key", "metadata", "audio_url")


@dataclass(frozen=True, slots=True)
class RejectedMessage:
    """A message that became no job.

    Attributes:
        rejected_at: Time of the rejection (Unix seconds).
        message_id: Celery's id of the message.
        task: Name of the Celery task.
        reason: Reason of the rejection.
        job: The job in the message; the beginning of its text if it was not JSON, or longer than 16,000 characters.
        namespace: Namespace that the message named; empty for the default one.
    """

    rejected_at: float
    message_id: str
    task: str
    reason: str
    job: Any
    namespace: str = ""

    def as_dict(self) -> operator_schemas.RejectedMessage:
        """Return the JSON representation."""
        return {
            "rejected_at": to_iso8601(self.rejected_at),
            "message_id": self.message_id,
            "task": self.task,
            "reason": self.reason,
            "namespace": self.namespace,
            "job": self.job,
        }


class RejectedMessages:
    """The rejected messages of one queue. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis

    def add(self, rejected: RejectedMessage) -> None:
        """Store a message; the oldest of its namespace are deleted beyond `MESSAGES_MAX` messages or `BYTES_MAX`
        bytes."""
        text, limits = _text(rejected), (MESSAGES_MAX, BYTES_MAX)
        self._space.run_script("add_rejected_message", f"{rejected.rejected_at:.6f}", text, *limits, rejected.namespace)

    def latest(self, at_most: int = MESSAGES_MAX) -> list[RejectedMessage]:
        """Return stored messages, newest first."""
        if at_most <= 0:
            return []
        namespaces = self._space.namespaces()
        with self._redis.pipeline(transaction=False) as pipe:
            for namespace in namespaces:
                pipe.lrange(self._key(namespace), 0, at_most - 1)
            return _newest_first(namespaces, pipe.execute())[:at_most]

    def with_id(self, message_id: str) -> list[RejectedMessage]:
        """Return the stored messages with this id, newest first: a sender may have sent it more than once."""
        return [message for message in self.latest() if message.message_id == message_id[:_NAME_MAX]]

    def newest_first(self) -> Iterator[RejectedMessage]:
        """Yield all stored messages, newest first, a few at a time."""
        return merge(*map(self._of, self._space.namespaces()), key=lambda message: -message.rejected_at)

    def _of(self, namespace: str) -> Iterator[RejectedMessage]:
        start = 0
        while lines := cast(list[str], self._redis.lrange(self._key(namespace), start, start + _READ - 1)):
            yield from (_read(line, namespace) for line in lines)
            start += _READ

    def pop_all(self) -> list[RejectedMessage]:
        """Return all stored messages, newest first, and delete them."""
        lists: dict[str, list[str]] = {namespace: [] for namespace in self._space.namespaces()}
        for line in self._space.run_change("pop_rejected_messages", *lists):
            namespace, _, message = line.partition("\n")
            lists[namespace].append(message)
        return _newest_first(list(lists), list(lists.values()))

    def count(self) -> int:
        """Return the number of stored messages."""
        with self._redis.pipeline(transaction=False) as pipe:
            for namespace in self._space.namespaces():
                pipe.llen(self._key(namespace))
            return sum(pipe.execute())

    def _key(self, namespace: str, name: str = "rejected_messages") -> str:
        return self._space.key(index_of(name, namespace))


def _text(rejected: RejectedMessage) -> str:
    """Return a line of JSON. Unpaired surrogates are replaced here, because every interface shows the line."""
    line = {
        "rejected_at": rejected.rejected_at,
        "message_id": rejected.message_id[:_NAME_MAX],
        "task": rejected.task[:_NAME_MAX],
        "reason": _cut(rejected.reason, _TEXT_MAX),
        "job": _bounded(rejected.job),
    }
    return replace_unencodable(json.dumps(line, ensure_ascii=False))


def _newest_first(namespaces: Sequence[str], lists: Sequence[list[str]]) -> list[RejectedMessage]:
    """Return the messages in the lists of these namespaces. Those of one list keep their order."""
    parts = [[_read(line, namespace) for line in lines] for namespace, lines in zip(namespaces, lists, strict=True)]
    if len(parts) == 1:
        return parts[0]
    return sorted((message for part in parts for message in part), key=lambda message: -message.rejected_at)


def _read(line: str, namespace: str) -> RejectedMessage:
    """Parse a line, also one of a release that escaped unpaired surrogates."""
    fields = known_fields(RejectedMessage, replace_unencodable_in_json(json.loads(line)))
    return RejectedMessage(**{**fields, "namespace": namespace})


def _bounded(job: Any) -> Any:
    """Return the job, or the beginning of its text."""
    if isinstance(job, bytes):
        job = job[: 4 * JOB_MAX].decode(errors="replace")
    if isinstance(job, str):
        return _cut(job, JOB_MAX)
    try:
        text = json.dumps(job, allow_nan=False)
        return job if len(text) <= JOB_MAX else _cut(json.dumps(_identified_first(job)), JOB_MAX)
    except (TypeError, ValueError):
        return _cut(_represented(job), JOB_MAX)
    except RecursionError:
        return "(nested too deeply)"


def _identified_first(value: Any) -> Any:
    """Return the value with the fields that say whose job it is before all others, because the rest may be cut: an
    erasure finds the message by them."""
    if isinstance(value, dict):
        first = {name: value[name] for name in _IDENTIFYING if name in value}
        return {name: _identified_first(part) for name, part in {**first, **value}.items()}
    return [_identified_first(part) for part in value] if isinstance(value, list | tuple) else value


def _represented(job: Any) -> str:
    try:
        return repr(job)
    except (ValueError, RecursionError):  # ValueError: a number with thousands of digits
        return f"(a {type(job).__name__} that has no text)"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"
