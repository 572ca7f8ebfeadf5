"""Callbacks: notifications of callers that a job or a batch has settled, kept until they are delivered.

A callback is written by the script that makes the transition it reports (`scripts/lib/callbacks.lua`) and deleted when
it was delivered. The callbacks of one job or batch are delivered in order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any

from voicequeue.domain import serialization
from voicequeue.domain.job import to_iso8601
from voicequeue.domain.namespaces import qualify, split
from voicequeue.domain.source import Source
from voicequeue.domain.spec import http_url, parse_stored_spec
from voicequeue.domain.status import CallbackCounts
from voicequeue.storage.connection.keyspace import rows
from voicequeue.storage.outbox import Outbox

if TYPE_CHECKING:
    from voicequeue.domain import operator_schemas

#: Callbacks that one page of a listing reads.
_PAGE = 500

#: The score of a callback that waits for an earlier one of its job or batch.
_BLOCKED = float("inf")


class _Outcome(StrEnum):
    DELIVERED = "delivered"
    RETRY = "retry"
    UNDELIVERED = "undelivered"


@dataclass(frozen=True, slots=True)
class Callback:
    """A callback that is not delivered.

    Attributes:
        id: Unique id; also the `webhook-id` header.
        type: Event type, such as `job.succeeded`.
        created_at: Time of the event (Unix seconds).
        job_id: Id of the job; None if it reports a batch.
        batch: Name of the batch; None if the job has none.
        attempts: Number of failed attempts.
        last_error: Error of the last attempt; empty before the first failure.
        due_at: Time of the next attempt (Unix seconds); None if it waits for an earlier callback of its job, or is
            undelivered.
        undelivered_at: Time when delivery was given up (Unix seconds); None until then.
        namespace: Namespace that owns the job or the batch; empty for the default one.
    """

    id: str
    type: str
    created_at: float
    job_id: str | None
    batch: str | None
    attempts: int = 0
    last_error: str = ""
    due_at: float | None = None
    undelivered_at: float | None = None
    namespace: str = ""

    @property
    def qualified_batch(self) -> str:
        """The batch with its namespace, such as `shop/spring`; without a batch, the namespace alone."""
        return qualify(self.namespace, self.batch or "")

    def as_dict(self) -> operator_schemas.Callback:
        """Return the JSON representation."""
        return {
            "id": self.id,
            "type": self.type,
            "created_at": to_iso8601(self.created_at),
            "namespace": self.namespace,
            "job_id": self.job_id,
            "batch": self.batch,
            "attempts": self.attempts,
            "last_error": self.last_error or None,
            "due_at": to_iso8601(self.due_at),
            "undelivered_at": to_iso8601(self.undelivered_at),
        }


class UndeliverableError(Exception):
    """The callback can never be sent; the text is the reason."""


@dataclass(frozen=True, slots=True)
class CallbackClaim:
    """A claim to one attempt to deliver a callback.

    `deliverable_since` is when it could first be delivered, `attempts` the number of failed attempts. `snapshot` is the
    record at the transition (JSON), `spec_or_url` the job's spec (JSON) or the batch's callback URL.
    """

    id: str
    type: str
    created_at: float
    deliverable_since: float
    attempts: int
    subject: str
    batch: str
    snapshot: str
    spec_or_url: str

    @property
    def job_id(self) -> str | None:
        """The job that it reports; None for a batch or a budget."""
        return _job_id(self.subject)

    def url(self) -> str:
        """Return the receiver's URL. Raises UndeliverableError."""
        url = self._job_url() if self.job_id is not None and self.spec_or_url else self.spec_or_url
        if not url:
            raise UndeliverableError("the job was purged, or its batch or budget has no callback URL any longer")
        return url

    def _job_url(self) -> str | None:
        with _readable():
            return parse_stored_spec(self.spec_or_url).callback_url

    def source(self) -> str:
        """Return how the job arrived, or who set the URL of the batch; empty if unknown."""
        field = "callback_source" if self.subject.startswith("batch:") else "source"
        with _readable():
            return str(json.loads(self.snapshot).get(field, ""))

    def body(self) -> bytes:
        """Return the payload; it is the same at every attempt. Raises UndeliverableError."""
        with _readable():
            payload = {"type": self.type, "timestamp": to_iso8601(self.created_at), "data": self._data()}
            return json.dumps(payload, separators=(",", ":")).encode()

    def _data(self) -> Mapping[str, object]:
        record: dict[str, str] = {name: str(value) for name, value in json.loads(self.snapshot).items()}
        if self.subject.startswith("budget:"):
            return json.loads(self.snapshot)  # type: ignore[no-any-return]  # what scripts/report_budgets.lua has written
        if self.job_id is None:
            return {**serialization.parse_batch(self.batch, record).as_dict(), "source": record.get("callback_source")}
        return serialization.parse_job(self.job_id, {**record, "spec": self.spec_or_url, "batch": self.batch}).as_dict()


@contextmanager
def _readable() -> Iterator[None]:
    """Raise UndeliverableError for a record that another release wrote; it must not be retried forever."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UndeliverableError("this release cannot read the job's record") from None


def _job_id(subject: str) -> str | None:
    kind, _, name = subject.partition(":")
    return name if kind == "job" else None


class CallbackOutbox(Outbox[Callback]):
    """The outbox of callbacks."""

    name = "callbacks"
    failed_index = "undelivered"
    max_leased = 500

    # ── delivering ─────────────────────────────────────────────────────────────────────────────

    def claim(self, ids: Iterable[str], now: float, *, lease_s: float) -> list[CallbackClaim]:
        """Claim those of these that are still to be attempted; no other worker gets them for `lease_s` seconds."""
        flat = self._space.run_script("callback_claim", f"{now:.6f}", f"{now + lease_s:.6f}", *ids)
        return [
            CallbackClaim(
                callback_id, kind, float(at), float(since or at), int(tries or 0), subject, batch, snapshot, spec_or_url
            )
            for callback_id, kind, at, since, tries, subject, batch, snapshot, spec_or_url in rows(flat, 9)
        ]

    def mark_delivered(self, callback_id: str, now: float) -> bool:
        """Delete a callback that was delivered. Return False if it was already finished."""
        return self._finish(callback_id, _Outcome.DELIVERED, now)

    def schedule_retry(self, callback_id: str, now: float, due: float, reason: str = "", *, is_attempted: bool) -> bool:
        """Attempt it again at `due`. `is_attempted` counts an attempt that failed for `reason`."""
        return self._finish(callback_id, _Outcome.RETRY, now, due, reason, is_attempted)

    def mark_undelivered(self, callback_id: str, now: float, reason: str, *, is_attempted: bool) -> bool:
        """Keep it as undelivered; the next callback of its job is due."""
        return self._finish(callback_id, _Outcome.UNDELIVERED, now, now, reason, is_attempted)

    def _finish(
        self, callback_id: str, outcome: _Outcome, now: float, due: float = 0.0, reason: str = "", tried: bool = True
    ) -> bool:
        arguments = (f"{now:.6f}", callback_id, outcome, f"{due:.6f}", reason, int(tried))
        return bool(self._space.run_script("callback_finish", *arguments))

    def redeliver(self, ids: Sequence[str], now: float) -> list[bool]:
        """Make these due now, also undelivered ones. Return for each that is in scope whether it exists."""
        owned = self._owned(ids)
        return [bool(it) for it in self._space.run_change("callback_retry", f"{now:.6f}", *owned)] if owned else []

    # ── reading ────────────────────────────────────────────────────────────────────────────────

    def counts(self, workers_since: float) -> CallbackCounts:
        """Return the numbers of callbacks, and of workers whose last heartbeat is after `workers_since`."""
        return CallbackCounts(*self._counts(workers_since, "callbacks.delivered"))

    def undelivered(self) -> Iterator[Callback]:
        """Yield undelivered callbacks, the oldest first, a page at a time."""
        return self.failed()

    def listed(
        self, *, undelivered: bool, after: tuple[str, float] | None
    ) -> Iterator[tuple[tuple[str, float], Callback]]:
        """Yield callbacks with their positions (id and score), those that follow the position `after`."""
        positions = self._space.scored_pages(self._failed if undelivered else self._pending, after=after)
        while page := list(islice(positions, _PAGE)):
            callbacks = {callback.id: callback for callback in self.get([callback_id for callback_id, _ in page])}
            yield from ((position, callbacks[position[0]]) for position in page if position[0] in callbacks)

    def _read(self, pipe: Any, entry_id: str) -> None:
        pipe.hgetall(self._space.key(f"callback:{entry_id}"))

    def _read_owner(self, pipe: Any, entry_id: str) -> None:
        pipe.hget(self._space.key(f"callback:{entry_id}"), "batch")

    def _entry(
        self, entry_id: str, record: Mapping[str, str], due: float | None, failed_at: float | None
    ) -> Callback | None:
        if not record or not self._space.scope.contains(record["batch"]):
            return None
        namespace, batch = split(record["batch"])
        return Callback(
            entry_id,
            record["type"],
            float(record["at"]),
            _job_id(record["subject"]),
            batch or None,
            attempts=int(record.get("attempts", 0)),
            last_error=record.get("reason", ""),
            due_at=None if due == _BLOCKED else due,
            undelivered_at=failed_at,
            namespace=namespace,
        )

    # ── batches ────────────────────────────────────────────────────────────────────────────────

    def set_batch_url(self, batch: str, url: str | None, *, source: str = Source.LIBRARY) -> None:
        """Set the URL that is notified when the batch has settled (None: no URL) and who set it. Raises ValueError.

        `batch` is its valid name, with its namespace.
        """
        address, setter = ("", "") if url is None else (http_url(url), source)
        fields = ("callback_url", address, "callback_source", setter)
        self._space.run_change("set_fields", f"batch:{batch}", *fields)
