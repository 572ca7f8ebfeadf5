"""Open what lies in a queue: whatever the bytes are, make an envelope of them that kombu and Celery can carry.

Pure. kombu opens messages without looking, and what it cannot open ends the worker. What is wrong with the task in an
envelope is judged in workers/envelope.py.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

from kombu.utils.json import loads as kombu_loads

from workers.envelope import JSON, UNREADABLE, instant

#: The queue into which other programs write.
FOREIGN = "intake"

#: The largest envelope of another program (bytes), and what is shown of one that is larger or cannot be read.
ENVELOPE_MAX = 2_000_000
EXCERPT_MAX = 64_000

#: Far below what Python's JSON can read and write: a message is read and written more than once.
DEPTH_MAX = 50

_REASON_MAX = 300


class UnsoundError(Exception):
    """What is wrong with an envelope, in words for its sender."""


def sound(message: Any, queue: str) -> dict[str, Any]:
    """Return an envelope that can be delivered and put back, for any bytes, or for the JSON value that they were.

    It has a delivery tag of its own: of two messages with the same tag, kombu would lose one. It belongs to the queue
    that it came from, whatever it says: kombu would put it back where a sender without `global_keyprefix` says.
    """
    try:
        envelope = _envelope(message, queue)
    except UnsoundError as error:
        return unreadable(_excerpt(message), str(error), queue)
    try:
        return _addressed(_reduced(envelope) if queue == FOREIGN else envelope, queue)
    except UnsoundError as error:
        return unreadable(_excerpt(_body(envelope)), str(error), queue, _kept(envelope.get("headers") or {}, {}))


def unreadable(text: str, reason: str, queue: str, named: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return an envelope around what was none, with as much of its id and task as could be read."""
    headers = {**(named or {}), UNREADABLE: _printable(reason)}
    return _addressed(
        {"body": text, "content-type": "text/plain", "content-encoding": "utf-8", "headers": headers}, queue
    )


def _addressed(envelope: Mapping[str, Any], queue: str) -> dict[str, Any]:
    properties = envelope.get("properties") or {}
    info = {**(properties.get("delivery_info") or {}), "exchange": "", "routing_key": queue}
    own = {"delivery_tag": str(uuid4()), "delivery_info": info}
    return {**envelope, "headers": envelope.get("headers") or {}, "properties": {**properties, **own}}


# ── the envelope ──────────────────────────────────────────────────────────────────────────────────


def _envelope(message: Any, queue: str) -> dict[str, Any]:
    """Return the envelope, whose parts have the right types. Raises UnsoundError."""
    if queue == FOREIGN and isinstance(message, bytes) and len(message) > ENVELOPE_MAX:
        raise UnsoundError(f"the envelope has {len(message):,} bytes; at most {ENVELOPE_MAX:,} are allowed")
    with _decoding("the envelope"):
        read = _strict_loads if queue == FOREIGN else kombu_loads
        value = read(message.decode()) if isinstance(message, bytes) else message
        if _is_deep(value):
            raise RecursionError
    if not isinstance(value, dict):
        raise UnsoundError("the envelope is no JSON object")
    if wrong := _wrong(value):
        raise UnsoundError(f"the envelope: {wrong}")
    return value


def _wrong(envelope: Mapping[str, Any]) -> str | None:
    properties = envelope.get("properties")
    properties = {} if properties is None else properties
    if not isinstance(properties, dict):
        return "properties must be an object"
    if not isinstance(properties.get("delivery_info") or {}, dict):
        return "properties.delivery_info must be an object"
    if not isinstance(envelope.get("headers") or {}, dict):
        return "headers must be an object"
    encoding, body = properties.get("body_encoding"), envelope.get("body")
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


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


#: JSON as its standard has it; kombu would also make objects of its own of some.
_strict_loads = partial(json.loads, parse_constant=_refuse_constant)


@contextmanager
def _decoding(part: str) -> Iterator[None]:
    """Raise UnsoundError for whatever decoding raises."""
    try:
        yield
    except (UnicodeError, json.JSONDecodeError):
        raise UnsoundError(f"{part} cannot be decoded: no JSON in UTF-8") from None
    except RecursionError:
        raise UnsoundError(f"{part} cannot be decoded: nested too deeply") from None
    except ValueError:  # too many digits for Python; NaN and infinity
        raise UnsoundError(f"{part} cannot be decoded: it has a number that is too long, or none") from None
    except Exception as error:  # what kombu makes of a value that has a type of its own
        raise UnsoundError(f"{part} cannot be decoded: {type(error).__name__}") from None


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH_MAX):
        nested = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = [inner for values in nested for inner in values]
        if not level:
            return False
    return True


# ── what another program's message keeps ──────────────────────────────────────────────────────────


def _reduced(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message of protocol 2 that has nothing else than a task, an id, times, a priority and arguments.

    Celery would do more for a sender: send what `callbacks`, `chain` and `chord` name, kill a child after `timelimit`,
    open what is compressed however large it becomes. Raises UnsoundError.
    """
    headers = envelope.get("headers") or {}
    if isinstance(reason := headers.get(UNREADABLE), str):
        raise UnsoundError(reason)
    if envelope.get("content-type") != JSON:
        raise UnsoundError(f"the content type must be {JSON}")
    if headers.get("compression"):
        raise UnsoundError("headers.compression: send the body uncompressed")
    with _decoding("the body"):
        payload = _strict_loads(_body(envelope).decode())
        if _is_deep(payload):
            raise RecursionError
        body = json.dumps(_arguments(payload), allow_nan=False)
    priority = (envelope.get("properties") or {}).get("priority")
    is_usable = type(priority) is int and 0 <= priority <= 9
    return {
        "body": body,
        "content-type": JSON,
        "content-encoding": "utf-8",
        "headers": _kept(headers, payload),
        "properties": {"priority": priority} if is_usable else {},
    }


def _body(envelope: Mapping[str, Any]) -> bytes:
    text: str = envelope["body"]
    encoding = (envelope.get("properties") or {}).get("body_encoding")
    return b64decode(text) if encoding else text.encode(errors="replace")


def _arguments(payload: Any) -> Any:
    """Return [args, kwargs, {}] for a body of protocol 2 or 1, and any other body as it is."""
    if isinstance(payload, dict):
        return [payload.get("args", []), payload.get("kwargs", {}), {}]
    if isinstance(payload, list) and len(payload) == 3 and isinstance(payload[2] or {}, dict):
        return [*payload[:2], {}]
    return payload


def _kept(headers: Mapping[str, Any], payload: Any) -> dict[str, str]:
    """Return task, id and times from the headers (protocol 2) or the body (protocol 1)."""
    inner = payload if isinstance(payload, dict) else {}
    named = {name: headers.get(name, inner.get(name)) for name in ("task", "id")}
    times = {name: headers.get(name, inner.get(name)) for name in ("eta", "expires")}
    return {
        **{name: given[:EXCERPT_MAX] for name, given in named.items() if isinstance(given, str)},
        **{name: _spelled(given) for name, given in times.items() if given is not None},
    }


def _spelled(given: Any) -> str:
    """Return a time as Celery reads it everywhere; '' for what is none."""
    at = instant(given)
    return at.isoformat() if at else ""


def _excerpt(found: Any) -> str:
    """Return the beginning of what cannot be read, as a text that can be encoded."""
    if isinstance(found, bytes):
        return found[:EXCERPT_MAX].decode(errors="replace")
    try:
        return json.dumps(found)[:EXCERPT_MAX]
    except (TypeError, ValueError, RecursionError):
        return ""


def _printable(text: str) -> str:
    """Return the beginning of a text for logs; it may be a sender's."""
    return "".join(char if char.isprintable() else "?" for char in text[:_REASON_MAX])
