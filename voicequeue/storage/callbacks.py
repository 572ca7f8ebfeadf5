"""What callers are told when a job or a batch has settled: the records of it, until they are delivered.

A callback is written by the script that makes the move it tells of (`scripts/lib/callbacks.lua`), and
removed when it was delivered. Every `now` is in Unix seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, cast

from voicequeue.domain import serialization
from voicequeue.domain.job import iso
from voicequeue.domain.origin import Origin
from voicequeue.domain.spec import batch_name, http_url, stored
from voicequeue.domain.status import CallbackCounts
from voicequeue.storage.keyspace import Keyspace, rows
from voicequeue.texts import mended

if TYPE_CHECKING:
    from voicequeue.domain import schemas

#: Callbacks that may be handed out and not claimed yet, in all.
OUT_MAX = 500

_PAGE = 500

#: Nobody looks at it before an earlier one of its job is over.
_WAITS = float("inf")


class Became(StrEnum):
    """What became of a callback that was claimed."""

    DELIVERED = "delivered"
    LATER = "later"
    UNDELIVERED = "undelivered"


@dataclass(frozen=True, slots=True)
class Callback:
    """One thing that a caller is still to be told. Times are Unix seconds.

    `job_id` is None where it tells of its batch as a whole. `reason` is why the last try failed. `due` is
    when it is tried next; None while it waits for an earlier one of its job, and once it was given up.
    """

    id: str
    type: str
    at: float
    job_id: str | None
    batch: str | None
    tries: int = 0
    reason: str = ""
    due: float | None = None
    given_up_at: float | None = None

    def as_dict(self) -> schemas.Callback:
        """Return the JSON representation."""
        return {
            "id": self.id,
            "type": self.type,
            "at": iso(self.at),
            "job": self.job_id,
            "batch": self.batch,
            "tries": self.tries,
            "reason": self.reason or None,
            "due": iso(self.due),
            "undelivered_at": iso(self.given_up_at),
        }


class Undeliverable(Exception):
    """There is nothing (any more) that could be sent; the text says why."""


@dataclass(frozen=True, slots=True)
class Call:
    """A claim to try one callback. `since` is when it could first be delivered, `tries` how often that failed."""

    id: str
    type: str
    at: float
    since: float
    tries: int
    subject: str
    batch: str
    told: str
    asked: str

    @property
    def job_id(self) -> str | None:
        """Of which it tells; None for a batch."""
        kind, _, name = self.subject.partition(":")
        return name if kind == "job" else None

    def url(self) -> str:
        """Where it goes. Raises Undeliverable."""
        url = self._url() if self.job_id is not None and self.asked else self.asked
        if not url:
            raise Undeliverable("the job, or the URL that its batch had, is gone")
        return url

    def _url(self) -> str | None:
        with _readable():
            return stored(self.asked).callback_url

    def body(self) -> bytes:
        """The payload, the same at each try. Raises Undeliverable."""
        with _readable():
            payload = {"type": self.type, "timestamp": iso(self.at), "data": self._data()}
            return json.dumps(payload, separators=(",", ":")).encode()

    def _data(self) -> Mapping[str, object]:
        record: dict[str, str] = {name: str(value) for name, value in json.loads(self.told).items()}
        if self.job_id is None:
            return {**serialization.batch(self.batch, record).as_dict(), "origin": record.get("callback_origin")}
        return serialization.job(self.job_id, {**record, "spec": self.asked}).as_dict()


@contextmanager
def _readable() -> Iterator[None]:
    """A record of other rules must not be tried for ever."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Undeliverable("this release cannot read the job's record") from None


class Callbacks:
    """The callbacks in Redis. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis

    # ── delivering ─────────────────────────────────────────────────────────────────────────────

    def hand_out(self, now: float, *, patience: float, at_most: int = OUT_MAX) -> list[str]:
        """Ids that are due; each is given to one caller, for `patience` seconds. `at_most` may be out at once."""
        return cast(list[str], self._space.run("calls", f"{now:.6f}", f"{now + patience:.6f}", at_most))

    def claim(self, ids: Iterable[str], now: float, *, lease: float) -> list[Call]:
        """Those that are still to be tried; nobody else gets them for `lease` seconds."""
        flat = self._space.run("call", f"{now:.6f}", f"{now + lease:.6f}", *ids)
        return [
            Call(callback_id, kind, float(at), float(since or at), int(tries or 0), subject, batch, told, asked)
            for callback_id, kind, at, since, tries, subject, batch, told, asked in rows(flat, 9)
        ]

    def delivered(self, callback_id: str, now: float) -> bool:
        """The receiver has it: nothing of it is kept."""
        return self._write(callback_id, Became.DELIVERED, now)

    def later(self, callback_id: str, now: float, due: float, reason: str = "", *, tried: bool) -> bool:
        """Try again then; `reason` is why it failed."""
        return self._write(callback_id, Became.LATER, now, due, reason, tried)

    def give_up(self, callback_id: str, now: float, reason: str, *, tried: bool) -> bool:
        """Keep it as undelivered; a later one of its job goes on."""
        return self._write(callback_id, Became.UNDELIVERED, now, now, reason, tried)

    def _write(
        self, callback_id: str, became: Became, now: float, due: float = 0.0, reason: str = "", tried: bool = True
    ) -> bool:
        return bool(self._space.run("called", f"{now:.6f}", callback_id, became, f"{due:.6f}", reason, int(tried)))

    def redeliver(self, ids: Sequence[str], now: float) -> list[bool]:
        """Try these at once, also those that were given up; False for what is not there (any more)."""
        return [bool(each) for each in self._space.run("recall", f"{now:.6f}", *ids)] if ids else []

    # ── asking ─────────────────────────────────────────────────────────────────────────────────

    def counted(self, workers_since: float) -> CallbackCounts:
        """How many there are."""
        pending = self._space.key("callbacks:pending")
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zcard(pending)
            pipe.zcount(pending, "+inf", "+inf")
            pipe.zcard(self._space.key("callbacks:undelivered"))
            pipe.hget(self._space.key("counters"), "callbacks.delivered")
            pipe.zcount(self._space.key("callbacks:pulses"), f"({workers_since}", "+inf")
            found = pipe.execute()
        return CallbackCounts(*(int(each or 0) for each in found))

    def pending(self) -> Iterator[Callback]:
        """Those to be delivered, whose time comes first, first; read a page at a time."""
        return self._read("callbacks:pending")

    def undelivered(self) -> Iterator[Callback]:
        """Those that were given up, the oldest first; read a page at a time."""
        return self._read("callbacks:undelivered")

    def _read(self, name: str) -> Iterator[Callback]:
        ids = self._space.pages(self._space.key(name))
        while page := list(islice(ids, _PAGE)):
            yield from self.get(page)

    def get(self, ids: Sequence[str]) -> list[Callback]:
        """Those of them that are not delivered."""
        ids = list(map(mended, ids))
        with self._redis.pipeline(transaction=False) as pipe:
            for callback_id in ids:
                pipe.hgetall(self._space.key(f"callback:{callback_id}"))
                pipe.zscore(self._space.key("callbacks:pending"), callback_id)
                pipe.zscore(self._space.key("callbacks:undelivered"), callback_id)
            found = iter(pipe.execute())
        return [
            _callback(callback_id, record, due, given_up)
            for callback_id, record, due, given_up in zip(ids, found, found, found, strict=False)
            if record
        ]

    # ── batches ────────────────────────────────────────────────────────────────────────────────

    def set_batch_url(self, name: str, url: str | None, *, origin: str = Origin.LIBRARY) -> None:
        """Set where it is told that the batch has settled (None: nowhere), and who wants that. Raises ValueError."""
        key = self._space.key(f"batch:{batch_name(name)}")
        if url is None:
            self._redis.hdel(key, "callback_url", "callback_origin")
        else:
            self._redis.hset(key, mapping={"callback_url": http_url(url), "callback_origin": origin})


def _callback(callback_id: str, record: Mapping[str, str], due: float | None, given_up: float | None) -> Callback:
    kind, _, name = record["subject"].partition(":")
    return Callback(
        callback_id,
        record["type"],
        float(record["at"]),
        name if kind == "job" else None,
        record["batch"] or None,
        tries=int(record.get("tries", 0)),
        reason=record.get("reason", ""),
        due=None if due is None or due == _WAITS else due,
        given_up_at=given_up,
    )
