"""Decode messages of a queue: turn any bytes into an envelope that kombu and Celery can carry.

Pure. kombu decodes messages without validation, and a message that it cannot decode ends the worker. The task in an
envelope is validated by workers/messaging/message_validation.py.
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
from workers.messaging.message_validation import JSON, UNREADABLE, parse_instant

#: The text headers that a message keeps, and those that only the workers' own messages keep: Flower shows them, and
#: traces are continued by them.
KEPT_HEADERS = ("task", "id")
KEPT_INTERNAL_HEADERS = (
    *KEPT_HEADERS,
    "root_id",
    "parent_id",
    "argsrepr",
    "kwargsrepr",
    "traceparent",
    "tracestate",
    "baggage",
)

#: Far more retries than any job has.
RETRIES_MAX = 1_000_000

#: The maximum size of a message to a task, and of the excerpt of a message that is larger or unreadable (bytes).
ENVELOPE_MAX = 2_000_000
EXCERPT_MAX = 64_000

#: Maximum nesting of JSON, far below what Python can read and write: a message is read and written more than once.
DEPTH_MAX = 50

_REASON_MAX = 300


class InvalidMessageError(Exception):
    """An envelope is invalid; the text says why, for its sender."""


def decode_message(message: Any, queue: str) -> dict[str, Any]:
    """Return an envelope that can be delivered and requeued, for any bytes or for the JSON value decoded from them.

    It gets a new delivery tag: of two messages with the same tag, kombu would lose one. It is addressed to the queue
    that it was read from, not to the one that it names: kombu would requeue it to the queue that a sender without
    `global_keyprefix` names.
    """
    try:
        envelope = _envelope(message, queue)
    except InvalidMessageError as error:
        return unreadable_envelope(_excerpt(message), str(error), queue)
    if queue not in QUEUE_NAMES:
        return _addressed(envelope, queue)
    kept = KEPT_HEADERS if queue == INTAKE else KEPT_INTERNAL_HEADERS
    try:
        return _addressed(_reduced(envelope, kept), queue)
    except InvalidMessageError as error:
        return unreadable_envelope(
            _excerpt(_body(envelope)), str(error), queue, _headers(envelope["headers"], {}, KEPT_HEADERS)
        )


def decode_publication(data: bytes) -> tuple[dict[str, Any], Any]:
    """Return the envelope and the decoded body of a broadcast. Raises InvalidMessageError."""
    envelope = _envelope(data, "")
    if envelope.get("content-type") != JSON or envelope["headers"].get("compression"):
        raise InvalidMessageError(f"the content type must be {JSON}, uncompressed")
    with _decoding("the body"):
        payload = _strict_loads(_body(envelope).decode())
        if _is_deep(payload):
            raise RecursionError
    return envelope, payload


def unreadable_envelope(text: str, reason: str, queue: str, named: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return an envelope for an unreadable message, with its id and task as far as they could be read."""
    headers = {**(named or {}), UNREADABLE: _printable(reason)}
    return _addressed(
        {"body": text, "content-type": "text/plain", "content-encoding": "utf-8", "headers": headers}, queue
    )


def _addressed(envelope: Mapping[str, Any], queue: str) -> dict[str, Any]:
    properties = envelope.get("properties", {})
    info = {**(properties.get("delivery_info") or {}), "exchange": "", "routing_key": queue}
    delivery = {"delivery_tag": str(uuid4()), "delivery_info": info}
    return {**envelope, "properties": {**properties, **delivery}}


# ── the envelope ──────────────────────────────────────────────────────────────────────────────────


def _envelope(message: Any, queue: str) -> dict[str, Any]:
    """Return the envelope with parts of the right types. Raises InvalidMessageError."""
    if queue in QUEUE_NAMES and isinstance(message, bytes) and len(message) > ENVELOPE_MAX:
        raise InvalidMessageError(f"the envelope has {len(message):,} bytes; at most {ENVELOPE_MAX:,} are allowed")
    with _decoding("the envelope"):
        read = _strict_loads if queue in QUEUE_NAMES else kombu_loads
        value = read(message.decode()) if isinstance(message, bytes) else message
        if _is_deep(value):
            raise RecursionError
    if not isinstance(value, dict):
        raise InvalidMessageError("the envelope is not a JSON object")
    if error := _envelope_error(value):
        raise InvalidMessageError(f"the envelope: {error}")
    return {**value, "headers": value.get("headers") or {}, "properties": value.get("properties") or {}}


def _envelope_error(envelope: Mapping[str, Any]) -> str | None:
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
        return "properties.body_encoding must be base64, or absent if the body is plain JSON text"
    return None if encoding is None or _is_base64(body) else "body is not valid base64, as body_encoding says"


def _is_base64(text: str) -> bool:
    try:
        b64decode(text)
    except (binascii.Error, ValueError):
        return False
    return True


def _refuse_constant(name: str) -> None:
    raise InvalidMessageError(f"{name} is not valid JSON")


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Return the object. Raises InvalidMessageError for objects that kombu would convert to another type."""
    if value.keys() == {"__type__", "__value__"}:
        raise InvalidMessageError("__type__ and __value__ are not allowed")
    return value


#: Reads JSON according to its standard.
_strict_loads = partial(json.loads, parse_constant=_refuse_constant, object_hook=_plain)


@contextmanager
def _decoding(part: str) -> Iterator[None]:
    """Turn any error of decoding into InvalidMessageError."""
    try:
        yield
    except (UnicodeError, json.JSONDecodeError):
        reason = "not JSON in UTF-8"
    except RecursionError:
        reason = "nested too deeply"
    except InvalidMessageError as error:
        reason = str(error)
    except ValueError:
        reason = "a number has too many digits or is not finite"
    except Exception as error:  # from kombu, for values with a type of their own
        reason = type(error).__name__
    else:
        return
    raise InvalidMessageError(f"{part} cannot be decoded: {reason}")


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH_MAX):
        containers = (item for item in level if isinstance(item, dict | list))
        level = [value for item in containers for value in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return False
    return True


# ── the parts of a task message that are kept ─────────────────────────────────────────────────────


def _reduced(envelope: Mapping[str, Any], kept: Sequence[str]) -> dict[str, Any]:
    """Return a message of protocol 2 with a task, its arguments and the kept headers only. Raises InvalidMessageError.

    Celery would do more on behalf of a sender: send the tasks in `callbacks`, `chain` and `chord`, kill a child after
    `timelimit`, and decompress a body to any size.
    """
    headers, priority = envelope["headers"], envelope["properties"].get("priority")
    if isinstance(reason := headers.get(UNREADABLE), str):
        raise InvalidMessageError(reason)
    if envelope.get("content-type") != JSON:
        raise InvalidMessageError(f"the content type must be {JSON}")
    if headers.get("compression"):
        raise InvalidMessageError("headers.compression: send the body uncompressed")
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
    """Return the kept headers, from the headers (protocol 2) or from the body (protocol 1)."""
    fields = {**payload, **headers} if isinstance(payload, dict) else headers
    retries = fields.get("retries")
    return {
        **{name: fields[name][:EXCERPT_MAX] for name in kept if isinstance(fields.get(name), str)},
        **{name: _iso_time(fields[name]) for name in ("eta", "expires") if fields.get(name) is not None},
        **({"retries": retries} if kept is KEPT_INTERNAL_HEADERS and _is_count(retries, RETRIES_MAX) else {}),
    }


def _is_count(value: Any, at_most: int) -> bool:
    return type(value) is int and 0 <= value <= at_most


def _iso_time(value: Any) -> str:
    """Return a time in the format that every part of Celery reads; '' for an invalid one."""
    at = parse_instant(value)
    return at.isoformat() if at else ""


def _excerpt(message: Any) -> str:
    """Return the start of an unreadable message, as text that can be encoded."""
    if isinstance(message, bytes):
        return message[:EXCERPT_MAX].decode(errors="replace")
    try:
        return json.dumps(message)[:EXCERPT_MAX]
    except (TypeError, ValueError, RecursionError):
        return ""


def _printable(text: str) -> str:
    """Return the start of a reason in printable characters; senders may have written it."""
    return "".join(char if char.isprintable() else "?" for char in text[:_REASON_MAX]) or "no reason given"
