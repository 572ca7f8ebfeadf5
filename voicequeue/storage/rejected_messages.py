"""Messages that could not be taken, kept so that whoever sent them can be told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from voicequeue.domain.job import iso
from voicequeue.storage.keyspace import Keyspace
from voicequeue.texts import mended, mended_json

if TYPE_CHECKING:
    from voicequeue.domain import schemas

#: So many are kept, the newest, while they have so many bytes in all; the newest one in any case.
KEPT = 1_000
BYTES_MAX = 4 << 20

#: What was given is kept whole up to so many characters of JSON; the rest of the record is shorter still.
GIVEN_MAX = 16_000
_TEXT_MAX = 2_000
_NAME_MAX = 200


@dataclass(frozen=True, slots=True)
class RejectedMessage:
    """A message that became no job: when, why, and the job as it was given.

    `job` is the beginning of a text where what was given was no JSON, or longer than 16,000 characters.
    """

    at: float
    message_id: str
    task: str
    reason: str
    job: Any

    def as_dict(self) -> schemas.RejectedMessage:
        """Return the JSON representation."""
        return {
            "at": iso(self.at),
            "message_id": self.message_id,
            "task": self.task,
            "reason": self.reason,
            "job": self.job,
        }


class Rejects:
    """The rejected messages of one queue, in Redis. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis
        self._key = keyspace.key("rejects")

    def add(self, rejected: RejectedMessage) -> None:
        """Keep it; the oldest go where there are too many, or too much of them."""
        self._space.run("reject", _text(rejected), KEPT, BYTES_MAX)

    def latest(self, at_most: int = KEPT) -> list[RejectedMessage]:
        """The newest first."""
        lines = self._redis.lrange(self._key, 0, at_most - 1) if at_most > 0 else []
        return [_read(line) for line in cast(list[str], lines)]

    def take(self) -> list[RejectedMessage]:
        """All that are kept, the newest first; from now on they are not."""
        with self._redis.pipeline() as pipe:
            pipe.lrange(self._key, 0, -1)
            pipe.delete(self._key, self._space.key("rejects:bytes"))
            lines, _ = pipe.execute()
        return [_read(line) for line in lines]

    def count(self) -> int:
        """How many are kept."""
        return self._redis.llen(self._key)


def _text(rejected: RejectedMessage) -> str:
    """Return it as a line; what cannot be shown, half a character, is replaced here, for every door shows it."""
    line = {
        "at": rejected.at,
        "message_id": rejected.message_id[:_NAME_MAX],
        "task": rejected.task[:_NAME_MAX],
        "reason": _cut(rejected.reason, _TEXT_MAX),
        "job": _bounded(rejected.job),
    }
    return mended(json.dumps(line, ensure_ascii=False))


def _read(line: str) -> RejectedMessage:
    """Return what a line holds, also one of a release that escaped halves of characters."""
    return RejectedMessage(**mended_json(json.loads(line)))


def _bounded(given: Any) -> Any:
    """What was given, or as much of its text as is kept."""
    if isinstance(given, bytes):
        given = given[: 4 * GIVEN_MAX].decode(errors="replace")
    if isinstance(given, str):
        return _cut(given, GIVEN_MAX)
    try:
        text = json.dumps(given, allow_nan=False)
    except (TypeError, ValueError):
        return _cut(_represented(given), GIVEN_MAX)
    except RecursionError:
        return "(nested too deeply)"
    return given if len(text) <= GIVEN_MAX else _cut(text, GIVEN_MAX)


def _represented(given: Any) -> str:
    try:
        return repr(given)
    except (ValueError, RecursionError):  # the former: a number of thousands of digits
        return f"(a {type(given).__name__} that cannot be written down)"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"
