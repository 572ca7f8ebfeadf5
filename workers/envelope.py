"""What a message from another program must look like, and what is wrong with one that does not.

Pure. `sound` is about the envelope, which kombu opens without looking; `fault` about the task in it.
"""

from __future__ import annotations

import binascii
import json
import math
from base64 import b64decode
from collections.abc import Container, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

#: The header of a message that could not be read, which says why.
UNREADABLE = "voicequeue-unreadable"

#: An id becomes part of a job's key.
ID_MAX = 180

_JSON = "application/json"

#: Beyond it, and before 1970, Celery cannot reckon in every time zone.
_YEAR_3000 = 32_503_680_000


def sound(raw: Any, queue: str) -> dict[str, Any]:
    """The envelope, with what may be left out; one that cannot be opened as one that says so.

    It belongs to the queue that it came from, whatever it says: a sender without kombu's `global_keyprefix` names the
    queue's whole key, and kombu would return the message to a queue that does not exist.
    """
    if not isinstance(raw, dict):
        return unreadable(json.dumps(raw), "the envelope is no JSON object", queue)
    properties = raw.get("properties")
    wrong = _wrong(raw, {} if properties is None else properties)
    if wrong:
        return unreadable(json.dumps(raw), f"the envelope: {wrong}", queue)
    found = {"delivery_tag": str(uuid4()), **(properties or {})}
    found["delivery_info"] = {**(found.get("delivery_info") or {}), "exchange": "", "routing_key": queue}
    return {**raw, "headers": raw.get("headers") or {}, "properties": found}


def _wrong(raw: Mapping[str, Any], properties: Any) -> str | None:
    if not isinstance(properties, dict):
        return "properties must be an object"
    if not isinstance(properties.get("delivery_info") or {}, dict):
        return "properties.delivery_info must be an object"
    if not isinstance(properties.get("delivery_tag", ""), str):
        return "properties.delivery_tag must be a text"
    if not isinstance(raw.get("headers") or {}, dict):
        return "headers must be an object"
    encoding, body = properties.get("body_encoding"), raw.get("body")
    if not isinstance(body, str):
        return "body must be a text"
    if encoding not in (None, "base64"):
        return "properties.body_encoding must be base64, or left out where the body is plain JSON text"
    return None if encoding is None or _is_base64(body) else "body is not the base64 that it is said to be"


def _is_base64(text: str) -> bool:
    try:
        b64decode(text)
    except (binascii.Error, ValueError):
        return False
    return True


def unreadable(text: str, reason: str, queue: str) -> dict[str, Any]:
    """An envelope around what was none."""
    return {
        "body": text,
        "content-type": "text/plain",
        "content-encoding": "utf-8",
        "headers": {UNREADABLE: reason},
        "properties": {"delivery_tag": str(uuid4()), "delivery_info": {"exchange": "", "routing_key": queue}},
    }


def name_and_id(headers: Mapping[str, Any], payload: Any) -> tuple[str, str]:
    """The task and the id that a message gives, '' where it gives none; protocol 1 has them in the body."""
    inner = payload if isinstance(payload, dict) else {}
    name, message_id = (headers.get(each, inner.get(each)) for each in ("task", "id"))
    return (name if isinstance(name, str) else ""), (message_id if isinstance(message_id, str) else "")


def fault(headers: Mapping[str, Any], content_type: Any, payload: Any, *, known: Container[str], now: float) -> str:
    """Why this message cannot be given to a task; '' if it can. No text quotes the job."""
    if UNREADABLE in headers:
        return str(headers[UNREADABLE])
    if content_type != _JSON:
        return f"the content type must be {_JSON}"
    name, message_id = name_and_id(headers, payload)
    if not name:
        return "no task is named: neither headers.task (protocol 2) nor task in the body (protocol 1)"
    if name not in known:
        return f"there is no task {name[:100]!r}; jobs are taken by voicequeue.enqueue"
    if not 1 <= len(message_id) <= ID_MAX:
        return f"the message's id must be a text of 1 to {ID_MAX} characters"
    return _fault_of_body(payload) or _fault_of_times(headers if "task" in headers else payload, now)


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


def _fault_of_times(headers: Mapping[str, Any], now: float) -> str:
    for name in ("eta", "expires"):
        given = headers.get(name)
        if given is None:
            continue
        try:
            at = datetime.fromisoformat(given)
            seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        except (TypeError, ValueError, OverflowError):
            seconds = math.nan
        if not 0 <= seconds < _YEAR_3000:
            return f"{name} must be a time such as 2030-01-31T12:00:00+00:00"
        if name == "expires" and seconds <= now:
            return "it expired before a worker took it"
    return ""
