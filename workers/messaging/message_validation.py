"""Validation of messages before they reach a task. Pure; workers/messaging/message_decoding.py decodes them."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from datetime import UTC, datetime
from typing import Any

#: The header of a message that could not be decoded; its value is the reason.
UNREADABLE = "voicequeue-unreadable"

#: The maximum length of a message id, which becomes part of a job's key.
ID_MAX = 180

JSON = "application/json"

#: Celery cannot convert later times, nor times before 1970, in every time zone.
_YEAR_3000 = 32_503_680_000


def task_name_and_id(headers: Mapping[str, Any], payload: Any) -> tuple[str, str]:
    """Return the task and the id of a message, '' for a missing one; protocol 1 has them in the body."""
    inner = payload if isinstance(payload, dict) else {}
    name, message_id = (headers.get(field, inner.get(field)) for field in ("task", "id"))
    return (name if isinstance(name, str) else ""), (message_id if isinstance(message_id, str) else "")


def validation_error(
    headers: Mapping[str, Any],
    content_type: Any,
    payload: Any,
    *,
    task_names: Container[str],
    now: float,
    eta_max_s: float = math.inf,
) -> str:
    """Return why this message is invalid, '' if it is valid. No text quotes the job.

    `task_names` are the names of the tasks that it may call. A worker holds a message until its `eta`, for at most
    `eta_max_s` seconds.
    """
    if UNREADABLE in headers:
        return str(headers[UNREADABLE])
    if content_type != JSON:
        return f"the content type must be {JSON}"
    name, message_id = task_name_and_id(headers, payload)
    if not name:
        return "no task is named: set headers.task (protocol 2) or task in the body (protocol 1)"
    if name not in task_names:
        return f"there is no task {name[:100]!r}; send jobs to voicequeue.enqueue"
    if not (1 <= len(message_id) <= ID_MAX and message_id.isprintable()):
        return f"the message's id must be a text of 1 to {ID_MAX} printable characters"
    times = headers if "task" in headers else payload
    return _body_error(payload) or _times_error(times, now, eta_max_s)


def _body_error(payload: Any) -> str:
    if isinstance(payload, dict):  # protocol 1
        args, kwargs, options = payload.get("args", []), payload.get("kwargs", {}), None
    elif isinstance(payload, list) and len(payload) == 3:
        args, kwargs, options = payload
    else:
        return 'the body must be [args, kwargs, options], such as [[], {"job": {…}}, {}]'
    if isinstance(args, list) and isinstance(kwargs, dict) and isinstance(options or {}, dict):
        return ""
    return "in the body, args must be an array, and kwargs and options objects"


def _times_error(headers: Mapping[str, Any], now: float, eta_max_s: float) -> str:
    seconds = {name: _seconds(headers[name]) for name in ("eta", "expires") if headers.get(name) is not None}
    for name, at in seconds.items():
        if math.isnan(at):
            return f"{name} must be a time such as 2030-01-31T12:00:00+00:00"
    if seconds.get("expires", math.inf) <= now:
        return "it expired before a worker received it"
    ahead_s = seconds.get("eta", now) - now
    if ahead_s > eta_max_s:
        return (
            f"eta: {headers['eta']} is {ahead_s:,.0f} s ahead, and at most {eta_max_s:,.0f} s are allowed; "
            "send the message later, or without eta and countdown"
        )
    return ""


def parse_instant(value: Any) -> datetime | None:
    """Return a time that Celery can convert, in UTC; None for anything else. A time without a zone is UTC."""
    try:
        at = datetime.fromisoformat(value)
        aware = at if at.tzinfo else at.replace(tzinfo=UTC)
        return aware.astimezone(UTC) if 0 <= aware.timestamp() < _YEAR_3000 else None
    except (TypeError, ValueError, OverflowError):
        return None


def _seconds(value: Any) -> float:
    at = parse_instant(value)
    return at.timestamp() if at else math.nan
