"""What is wrong with a message that cannot be given to a task. Pure; workers/message_decoding.py opens messages."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from datetime import UTC, datetime
from typing import Any

#: The header of a message that could not be read, which says why.
UNREADABLE = "voicequeue-unreadable"

#: An id becomes part of a job's key.
ID_MAX = 180

JSON = "application/json"

#: Beyond it, and before 1970, Celery cannot reckon in every time zone.
_YEAR_3000 = 32_503_680_000


def name_and_id(headers: Mapping[str, Any], payload: Any) -> tuple[str, str]:
    """The task and the id that a message gives, '' where it gives none; protocol 1 has them in the body."""
    inner = payload if isinstance(payload, dict) else {}
    name, message_id = (headers.get(each, inner.get(each)) for each in ("task", "id"))
    return (name if isinstance(name, str) else ""), (message_id if isinstance(message_id, str) else "")


def fault(
    headers: Mapping[str, Any],
    content_type: Any,
    payload: Any,
    *,
    known: Container[str],
    now: float,
    eta_max_s: float = math.inf,
) -> str:
    """Why this message cannot be given to a task; '' if it can. No text quotes the job.

    A worker holds a message until its `eta`, at most `eta_max_s` seconds.
    """
    if UNREADABLE in headers:
        return str(headers[UNREADABLE])
    if content_type != JSON:
        return f"the content type must be {JSON}"
    name, message_id = name_and_id(headers, payload)
    if not name:
        return "no task is named: neither headers.task (protocol 2) nor task in the body (protocol 1)"
    if name not in known:
        return f"there is no task {name[:100]!r}; jobs are taken by voicequeue.enqueue"
    if not (1 <= len(message_id) <= ID_MAX and message_id.isprintable()):
        return f"the message's id must be a text of 1 to {ID_MAX} printable characters"
    times = headers if "task" in headers else payload
    return _fault_of_body(payload) or _fault_of_times(times, now, eta_max_s)


def _fault_of_body(payload: Any) -> str:
    if isinstance(payload, dict):  # protocol 1
        args, named, embedded = payload.get("args", []), payload.get("kwargs", {}), None
    elif isinstance(payload, list) and len(payload) == 3:
        args, named, embedded = payload
    else:
        return 'the body must be [args, kwargs, options], such as [[], {"job": {…}}, {}]'
    if isinstance(args, list) and isinstance(named, dict) and isinstance(embedded or {}, dict):
        return ""
    return "the body's args must be an array, its kwargs and options objects"


def _fault_of_times(headers: Mapping[str, Any], now: float, eta_max_s: float) -> str:
    seconds = {name: _seconds(headers[name]) for name in ("eta", "expires") if headers.get(name) is not None}
    for name, at in seconds.items():
        if math.isnan(at):
            return f"{name} must be a time such as 2030-01-31T12:00:00+00:00"
    if seconds.get("expires", math.inf) <= now:
        return "it expired before a worker took it"
    ahead_s = seconds.get("eta", now) - now
    if ahead_s > eta_max_s:
        return (
            f"eta: {headers['eta']} is {ahead_s:,.0f} s ahead, and at most {eta_max_s:,.0f} s are allowed; "
            "send the message later, or without eta and countdown"
        )
    return ""


def instant(given: Any) -> datetime | None:
    """Return a time of day that Celery can reckon with, in UTC; None for all else. Without a zone it is UTC."""
    try:
        at = datetime.fromisoformat(given)
        aware = at if at.tzinfo else at.replace(tzinfo=UTC)
        return aware.astimezone(UTC) if 0 <= aware.timestamp() < _YEAR_3000 else None
    except (TypeError, ValueError, OverflowError):
        return None


def _seconds(given: Any) -> float:
    at = instant(given)
    return at.timestamp() if at else math.nan
