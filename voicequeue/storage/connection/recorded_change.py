"""The change that a thread makes for a caller, until a script has appended its entry to the audit log.

The client opens a change (voicequeue/client/audited.py). The first script that changes something for it appends the
entry, so that neither is written without the other (scripts/lib/audit_log.lua).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

#: The longest name of an actor.
ACTOR_MAX = 200

#: Ids that an entry names, of callbacks or jobs that are given one by one.
_IDS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Actor:
    """The person or program that makes changes.

    `name` is such as `key:shop`, `page:ana`, `cli:ana@host` or `library:app`; '' is an actor that may change nothing.
    `address` is the address of an HTTP client. `reason` is the reason of the changes, in the words of the actor.
    """

    name: str
    address: str = ""
    reason: str = ""


@dataclass(slots=True)
class Change:
    """A change in progress.

    Attributes:
        actor: Who makes it.
        action: What it does, such as `pause`.
        namespace: Namespace that it concerns; `*` for the whole queue.
        job_id: Id of the job; '' if it concerns several, or none.
        batch: Name of the batch; '' for none.
        details: Its other arguments, without secrets and personal data.
        jobs: Number of jobs (callbacks, messages, findings) that it concerns. None: those that the script changes.
        credits: The most credits that it may cost; None if it orders nothing.
        is_recorded: Whether its entry is written.
    """

    actor: Actor
    action: str
    namespace: str = ""
    job_id: str = ""
    batch: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    jobs: int | None = None
    credits: int | None = None
    is_recorded: bool = False
    _id: str = field(default_factory=lambda: secrets.token_hex(8))

    def next_part(self) -> None:
        """Let the next script that changes something append another entry."""
        self.is_recorded, self._id = False, secrets.token_hex(8)

    def argument(self) -> str:
        """Return the entry as the argument of a script: its fields, and whether the script counts the jobs."""
        fields: dict[str, Any] = {
            "id": self._id,
            "actor": self.actor.name,
            "address": self.actor.address,
            "action": self.action,
            "namespace": self.namespace,
            "job_id": self.job_id,
            "batch": self.batch,
            "details": json.dumps(self.details, ensure_ascii=False) if self.details else "",
            "jobs": self.jobs,
            "credits": self.credits,
            "reason": self.actor.reason,
        }
        texts = [text for name, value in fields.items() if value not in (None, "") for text in (name, str(value))]
        return json.dumps({"fields": texts, "counts": self.jobs is None}, ensure_ascii=False)


_current: ContextVar[Change | None] = ContextVar("voicequeue_change", default=None)


def current_change() -> Change | None:
    """Return the change that this thread makes; None if it makes none for a caller."""
    return _current.get()


@contextmanager
def recorded(change: Change) -> Iterator[Change]:
    """Record what scripts change meanwhile in this thread as one change."""
    token = _current.set(change)
    try:
        yield change
    finally:
        _current.reset(token)


def unrecorded_change() -> Change | None:
    """Return the change of this thread if no script has appended its entry yet."""
    change = _current.get()
    return None if change is None or change.is_recorded else change


def amend(
    *,
    action: str | None = None,
    namespace: str | None = None,
    batch: str | None = None,
    jobs: int | None = None,
    credits: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Add to the current change what is known only after reading: namespace and batch, the number of jobs, the cost."""
    change = _current.get()
    if change is None:
        return
    change.action = action or change.action
    change.namespace = change.namespace if namespace is None else namespace
    change.batch = batch or change.batch
    change.jobs = change.jobs if jobs is None else jobs
    change.credits = change.credits if credits is None else credits
    change.details |= details or {}


def begin_part(ids: Sequence[str], *, namespace: str) -> None:
    """Record what follows in another entry, with the namespace and the first of these ids: more may follow."""
    change = _current.get()
    if change is not None:
        change.next_part()
        change.namespace = namespace
        if not ids:
            return
        shown = ", ".join(ids[:_IDS_SHOWN])
        change.details["ids"] = f"{shown}, …" if len(ids) > _IDS_SHOWN else shown


def has_changed(reply: Any) -> bool:
    """Return whether the reply of a script says that it changed something (the same as in lib/audit_log.lua)."""
    return any(item not in (0, "", None) for item in (reply if isinstance(reply, list) else [reply]))
