"""The audit log of the client: each public method that changes something is `audited`.

One seam for every interface: the decorator describes the call, and the script that makes the change appends the entry
(voicequeue/storage/connection/recorded_change.py). A call that changes nothing, or raises, has no entry.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import wraps
from math import inf
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar
from urllib.parse import urlsplit

from voicequeue.client.search import Filter
from voicequeue.client.unchanged import UNCHANGED
from voicequeue.domain.namespaces import named_in
from voicequeue.storage.connection.recorded_change import Actor, Change, current_change, recorded
from voicequeue.texts import replace_unencodable


class _Actor(Protocol):
    """An object that changes something for an actor, in a namespace."""

    _actor: Actor

    @property
    def namespace(self) -> str: ...


P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=_Actor)

#: Parameters that are not details: they have a field of their own, or are secret.
_NOT_DETAILS = frozenset(
    (
        *("self", "namespace", "job_id", "batch", "name", "reason", "token", "key", "audio_sha256", "action"),
        *("may_resubmit", "version"),
    )
)

#: The longest text of an argument and of a reason in the audit log.
_TEXT_MAX = 200

#: The value of a limit that was removed.
NO_LIMIT = "none"

#: Marks of audited methods, for tests.
AUDITED = "is_audited"


def audited(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Return the method so that what it changes is recorded with its actor and its arguments.

    Within another audited method it is a part of that change. Raises RuntimeError if the queue has no actor.
    """
    signature = inspect.signature(method)
    removable = [name for name, parameter in signature.parameters.items() if parameter.default is UNCHANGED]

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if current_change() is not None:
            return method(self, *args, **kwargs)
        arguments = signature.bind(self, *args, **kwargs).arguments
        arguments |= {name: NO_LIMIT for name in removable if name in arguments and arguments[name] is None}
        with recorded(_change(self._actor, self.namespace, method.__name__, arguments)):
            return method(self, *args, **kwargs)

    setattr(call, AUDITED, True)
    return call


def _change(actor: Actor, scope: str, action: str, arguments: Mapping[str, Any]) -> Change:
    if not actor.name:
        raise RuntimeError(f"{action} changes the queue: call on_behalf_of() first, to say for whom")
    job_id = str(arguments.get("job_id", ""))
    namespace, batch = named_in(scope, str(arguments.get("batch") or arguments.get("name") or ""))
    reason = _shortened(str(arguments.get("reason") or actor.reason))
    texts = ((name, _detail(value)) for name, value in arguments.items() if name not in _NOT_DETAILS)
    return Change(
        Actor(actor.name, actor.address, reason),
        action,
        namespace=namespace,
        job_id=_shortened(job_id),
        batch=_shortened(batch),
        details={name: value for name, value in texts if value is not None},
        jobs=1 if job_id else None,
    )


def _detail(value: Any) -> Any:
    """Return an argument for the log; None if it is not to be logged. Of a URL only its host is."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return NO_LIMIT if value == inf else int(value) if value.is_integer() else str(value)
    if isinstance(value, str):
        return _host(value) if "//" in value else _shortened(value)
    return None


def filter_details(job_filter: Filter) -> dict[str, Any]:
    """Return a filter for the log. Values of metadata and searched texts may be personal data, and are left out."""
    details = {
        field.name: _detail(getattr(job_filter, field.name))
        for field in fields(Filter)
        if field.name not in ("batch", "metadata", "text")
    }
    details["metadata"] = ", ".join(job_filter.metadata) or None
    details["search"] = None if job_filter.text is None else "(a text)"
    return {name: value for name, value in details.items() if value is not None}


def _host(url: str) -> str:
    try:
        return urlsplit(url.strip()).hostname or "(a URL)"
    except ValueError:
        return "(a URL)"


def _shortened(text: str) -> str:
    text = replace_unencodable(text)
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"
