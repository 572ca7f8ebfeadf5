"""Open what lies in a queue: whatever the bytes are, make an envelope of them that kombu and Celery can carry.

Pure. kombu opens messages without looking, and what it cannot open ends the worker. What is wrong with the task in an
envelope is judged in workers/message_validation.py.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

from kombu.utils.json import loads as kombu_loads

from voicequeue.storage.celery_queues import INTAKE, QUEUE_NAMES
from workers.message_validation import JSON, UNREADABLE, instant

#: Texts that a message keeps in its headers, and those that only the workers' own messages keep: Flower shows them,
#: and traces go on by them.
KEPT = ("task", "id")
KEPT_OWN = (*KEPT, "root_id", "parent_id", "argsrepr", "kwargsrepr", "traceparent", "tracestate", "baggage")

#: Far more tries than a job has.
RETRIES_MAX = 1_000_000

#: The largest message to a task (bytes), and what is shown of one that is larger or cannot be read.
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
    if queue not in QUEUE_NAMES:
        return _addressed(envelope, queue)
    kept = KEPT if queue == INTAKE else KEPT_OWN
    try:
        return _addressed(_reduced(envelope, kept), queue)
    except UnsoundError as error:
        return unreadable(_excerpt(_body(envelope)), str(error), queue, _headers(envelope["headers"], {}, KEPT))


def publication(data: bytes) -> tuple[dict[str, Any], Any]:
    """Return the envelope of what was published, and what its body says. Raises UnsoundError."""
    envelope = _envelope(data, "")
    if envelope.get("content-type") != JSON or envelope["headers"].get("compression"):
        raise UnsoundError(f"the content type must be {JSON}, uncompressed")
    with _decoding("the body"):
        payload = _strict_loads(_body(envelope).decode())
        if _is_deep(payload):
            raise RecursionError
    return envelope, payload


def unreadable(text: str, reason: str, queue: str, named: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return an envelope around what was none, with as much of its id and task as could be read."""
    headers = {**(named or {}), UNREADABLE: _printable(reason)}
    return _addressed(
        {"body": text, "content-type": "text/plain", "content-encoding": "utf-8", "headers": headers}, queue
    )


def _addressed(envelope: Mapping[str, Any], queue: str) -> dict[str, Any]:
    properties = envelope.get("properties", {})
    info = {**(properties.get("delivery_info") or {}), "exchange": "", "routing_key": queue}
    own = {"delivery_tag": str(uuid4()), "delivery_info": info}
    return {**envelope, "properties": {**properties, **own}}


# ── the envelope ──────────────────────────────────────────────────────────────────────────────────


def _envelope(message: Any, queue: str) -> dict[str, Any]:
    """Return the envelope, whose parts have the right types. Raises UnsoundError."""
    if queue in QUEUE_NAMES and isinstance(message, bytes) and len(message) > ENVELOPE_MAX:
        raise UnsoundError(f"the envelope has {len(message):,} bytes; at most {ENVELOPE_MAX:,} are allowed")
    with _decoding("the envelope"):
        read = _strict_loads if queue in QUEUE_NAMES else kombu_loads
        value = read(message.decode()) if isinstance(message, bytes) else message
        if _is_deep(value):
            raise RecursionError
    if not isinstance(value, dict):
        raise UnsoundError("the envelope is no JSON object")
    if wrong := _wrong(value):
        raise UnsoundError(f"the envelope: {wrong}")
    return {**value, "headers": value.get("headers") or {}, "properties": value.get("properties") or {}}


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
    raise UnsoundError(f"{name} is no JSON")


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Return an object, unless it is one of which kombu makes something else, in a worker and again in its child."""
    if value.keys() == {"__type__", "__value__"}:
        raise UnsoundError("__type__ and __value__ are not allowed")
    return value


#: JSON as its standard has it.
_strict_loads = partial(json.loads, parse_constant=_refuse_constant, object_hook=_plain)


@contextmanager
def _decoding(part: str) -> Iterator[None]:
    """Raise UnsoundError for whatever decoding raises."""
    try:
        yield
    except (UnicodeError, json.JSONDecodeError):
        reason = "no JSON in UTF-8"
    except RecursionError:
        reason = "nested too deeply"
    except UnsoundError as error:
        reason = str(error)
    except ValueError:
        reason = "a number has too many digits or is not finite"
    except Exception as error:  # what kombu makes of values that have a type of their own
        reason = type(error).__name__
    else:
        return
    raise UnsoundError(f"{part} cannot be decoded: {reason}")


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH_MAX):
        nested = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = [inner for values in nested for inner in values]
        if not level:
            return False
    return True


# ── what is kept of a message to a task ───────────────────────────────────────────────────────────


def _reduced(envelope: Mapping[str, Any], kept: Sequence[str]) -> dict[str, Any]:
    """Return a message of protocol 2 that has nothing else than a task, its arguments and what is said of them here.

    Celery would do more for a sender: send what `callbacks`, `chain` and `chord` name, kill a child after `timelimit`,
    open what is compressed however large it becomes. Raises UnsoundError.
    """
    headers, priority = envelope["headers"], envelope["properties"].get("priority")
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
    return {
        "body": body,
        "content-type": JSON,
        "content-encoding": "utf-8",
        "headers": _headers(headers, payload, kept),
        "properties": {"priority": priority} if _is_count(priority, 9) else {},
    }


def _body(envelope: Mapping[str, Any]) -> bytes:
    text: str = envelope["body"]
    return b64decode(text) if envelope["properties"].get("body_encoding") else text.encode(errors="replace")


def _arguments(payload: Any) -> Any:
    """Return [args, kwargs, {}] for a body of protocol 2 or 1, and any other body as it is."""
    if isinstance(payload, dict):
        return [payload.get("args", []), payload.get("kwargs", {}), {}]
    if isinstance(payload, list) and len(payload) == 3 and isinstance(payload[2] or {}, dict):
        return [*payload[:2], {}]
    return payload


def _headers(headers: Mapping[str, Any], payload: Any, kept: Sequence[str]) -> dict[str, Any]:
    """Return what is kept of the headers (protocol 2) or of what stands in the body for them (protocol 1)."""
    found = {**payload, **headers} if isinstance(payload, dict) else headers
    retries = found.get("retries")
    return {
        **{name: found[name][:EXCERPT_MAX] for name in kept if isinstance(found.get(name), str)},
        **{name: _spelled(found[name]) for name in ("eta", "expires") if found.get(name) is not None},
        **({"retries": retries} if kept is KEPT_OWN and _is_count(retries, RETRIES_MAX) else {}),
    }


def _is_count(value: Any, at_most: int) -> bool:
    return type(value) is int and 0 <= value <= at_most


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
    """Return the beginning of a reason for logs; it may be a sender's."""
    return "".join(char if char.isprintable() else "?" for char in text[:_REASON_MAX]) or "no reason is given"
