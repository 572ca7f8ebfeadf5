"""Messages that an attacker, or a program with a defect, may write into the queue `intake`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from tests.support.messages import INTAKE, NAME, envelope

GOOD = {"audio_url": "https://recordings.example/good.wav"}

#: Half of a surrogate pair, which is what a cut emoji becomes.
HALF = "\ud83c"

HUGE = int("9" * 4_000)

#: What any field may be instead of what it should be.
HOSTILE: tuple[Any, ...] = (
    None,
    True,
    -1,
    7,
    0.5,
    1e308,
    HUGE,
    float("nan"),
    float("inf"),
    "",
    HALF,
    "a\x00\r\n\x1b[31mb",
    "\u202etxt\u2066",
    "x" * 10_000,
    "{{7*7}}${jndi:x}",
    [],
    [HALF, None],
    {},
    {HALF: HALF},
    {"__type__": "klingon", "__value__": 1},
    {"__type__": "decimal", "__value__": "9" * 999},
    {"__type__": "datetime", "__value__": "tomorrow"},
    {"task": "voice.submit", "args": [["x"]], "kwargs": {}, "options": {}},
)

#: Headers that Celery knows.
HEADERS = (
    "id",
    "task",
    "root_id",
    "parent_id",
    "group",
    "group_index",
    "lang",
    "meth",
    "shadow",
    "eta",
    "expires",
    "retries",
    "timelimit",
    "argsrepr",
    "kwargsrepr",
    "origin",
    "ignore_result",
    "replaced_task_nesting",
    "stamps",
    "stamped_headers",
    "compression",
    "clock",
    "redelivered",
    "traceparent",
    "voicequeue-unreadable",
)

PROPERTIES = (
    "delivery_tag",
    "delivery_info",
    "delivery_mode",
    "priority",
    "reply_to",
    "correlation_id",
    "body_encoding",
    "expiration",
)

OPTIONS = ("callbacks", "errbacks", "chain", "chord")

#: What a job of protocol 1 has in its body.
OLD_BODY = ("retries", "timelimit", "eta", "expires", "taskset", "utc", "args", "kwargs", *OPTIONS)

ARGUMENTS = ("job", "self", "args", "kwargs", "named", HALF)

FIELDS = ("audio_url", "song", "songs", "name", "batch", "priority", "key", "metadata", "max_credits", "start_within_s")

_numbers = count(1)


def fresh_id() -> str:
    """Return an id that no other message has."""
    return f"attack-{next(_numbers)}"


def message(job: Any = None, **parts: Any) -> dict[str, Any]:
    """Return a sound message with an id of its own; `parts` as for `envelope`."""
    return envelope([[], {"job": GOOD if job is None else job}, {}], message_id=fresh_id(), **parts)


def with_property(name: str, value: Any) -> dict[str, Any]:
    """Return a message that has this property."""
    sound = message()
    return {**sound, "properties": {**sound["properties"], name: value}}


def old(**parts: Any) -> dict[str, Any]:
    """Return a message of protocol 1."""
    body = {"task": NAME, "id": fresh_id(), "args": [], "kwargs": {"job": GOOD}, **parts}
    return {**envelope(body), "headers": {}}


def places(value: Any) -> Iterator[Any]:
    """Yield messages of which one part each is this value."""
    for part in ("body", "headers", "properties", "content-type", "content-encoding"):
        yield {**message(), part: value}
    yield from (message(headers={name: value}) for name in HEADERS)
    yield from (with_property(name, value) for name in PROPERTIES)
    yield from (old(**{name: value}) for name in OLD_BODY)
    yield from (envelope(body, message_id=fresh_id()) for body in bodies(value))
    yield from (message({**GOOD, name: value}) for name in FIELDS)
    yield message({**GOOD, "song": {"title": "A", "prompt": value}})
    yield message({**GOOD, "metadata": {"name": value}})
    if isinstance(value, str):
        yield message({**GOOD, value: 1})
        yield message({**GOOD, "metadata": {value: "x"}})


def bodies(value: Any) -> Iterator[Any]:
    """Yield bodies of which one part each is this value."""
    yield value
    yield from ([value, {"job": GOOD}, {}], [[], value, {}], [[], {"job": GOOD}, value], [[value], {}, {}])
    yield from ([[], {"job": GOOD, name: value}, {}] for name in ARGUMENTS if name != "job")
    yield [[], {"job": value}, {}]
    yield from ([[], {"job": GOOD}, {name: value}] for name in OPTIONS)


def every_place() -> list[bytes]:
    """Return a message for each part and each hostile value."""
    return [json.dumps(each).encode() for value in HOSTILE for each in places(value)]


def nested(depth: int) -> bytes:
    """Return an array in arrays."""
    return b"[" * depth + b"]" * depth


def _in_body(text: bytes, sort: str = "base64") -> bytes:
    """Return a message with this text as the body."""
    body = base64.b64encode(text).decode() if sort == "base64" else text.decode()
    return json.dumps(message(raw_body=body)).encode()


def _replaced(marker: str, text: bytes) -> bytes:
    """Return a message of which a header is no JSON that Python would write."""
    return json.dumps(message(headers={"retries": marker})).encode().replace(json.dumps(marker).encode(), text)


def ahead(seconds: float) -> str:
    """Return a time of day that is so far ahead."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


#: Envelopes byte by byte; those that killed a worker once stand first.
CORPUS: Mapping[str, bytes] = {
    "half a surrogate in the delivery tag": json.dumps(with_property("delivery_tag", HALF)).encode(),
    "an integer of 5,000 digits": _replaced("@", b"9" * 5_000),
    "an integer of 5,000 digits in the body": _in_body(b'[[], {"job": ' + b"9" * 5_000 + b"}, {}]"),
    "an unknown type of kombu's": _replaced("@", b'{"__type__": "klingon", "__value__": 1}'),
    "a type of kombu's with a wrong value": _replaced("@", b'{"__type__": "bytes", "__value__": 1}'),
    "a float beyond all": _replaced("@", b"1e999"),
    "not a number": _replaced("@", b"NaN"),
    "minus infinity in the body": _in_body(b'[[], {"job": {"start_within_s": -Infinity}}, {}]'),
    "an argument called self": json.dumps(envelope([[], {"self": 1}, {}], message_id=fresh_id())).encode(),
    "nested just below what Python reads": b'{"headers":' + nested(900) + b"}",
    "nested for ever": b"[" * 200_000,
    "nested in the body": _in_body(b'[[], {"job": ' + nested(900) + b"}, {}]"),
    "nested for ever in the body": _in_body(b"[" * 200_000),
    "nothing": b"",
    "a zero byte": b"\x00",
    "invalid UTF-8": b'{"body": "\xff\xfe"}',
    "surrogates as UTF-8": b'{"body": "\xed\xa0\xbd"}',
    "UTF-16": json.dumps(message()).encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(message()).encode(),
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.",
    "three megabytes": json.dumps(message({**GOOD, "name": "x" * 3_000_000})).encode(),
    "three megabytes of nothing": b" " * 3_000_000 + json.dumps(message()).encode(),
    "two objects": json.dumps(message()).encode() * 2,
    "keys that come twice": b'{"body": "x", "body": 7, "headers": {}, "headers": [], "properties": {}}',
    "a body of half surrogates": json.dumps(message(raw_body="\ud800" * 9) | {"properties": {}}).encode(),
    "latin-1 in the body": _in_body('[[], {"job": {"name": "é"}}, {}]'.encode("latin-1")),
    "a compressed body": json.dumps(message(headers={"compression": "application/x-gzip"})).encode(),
    "another program's task": json.dumps(message(headers={"task": "voice.submit"})).encode(),
    "a task of Celery's": json.dumps(message(headers={"task": "celery.chord"})).encode(),
    "a reason of the sender's": json.dumps(message(headers={"voicequeue-unreadable": "x\nERROR forged"})).encode(),
    "an id on two lines": json.dumps(envelope(message_id="x\nERROR forged")).encode(),
    "a time limit of nothing": json.dumps(message(headers={"timelimit": [0.001, 0.001]})).encode(),
    "50 minutes ahead": json.dumps(message(headers={"eta": ahead(3_000)})).encode(),
}

#: What a message must not bring with it, wherever Celery would look for it.
LADEN = {
    **message(
        headers={
            "timelimit": [0.001, 0.001],
            "retries": 9,
            "reply_to": "x",
            "ignore_result": False,
            "shadow": "x",
            "stamped_headers": ["x"],
            "stamps": {"x": 1},
        }
    ),
    "properties": {"reply_to": "x", "correlation_id": "x", "priority": 1e308, "delivery_info": {"routing_key": "poll"}},
    "body": json.dumps([[], {"job": GOOD}, {name: [{"task": "voice.submit"}] for name in OPTIONS}]),
}

__all__ = ["CORPUS", "GOOD", "HALF", "HOSTILE", "INTAKE", "LADEN", "NAME", "ahead", "every_place", "message", "nested"]


def own_queue(task: str) -> list[bytes]:
    """Return messages to a task of the workers' own with each hostile header."""
    headers = [{"task": task, name: value} for name in HEADERS if name != "task" for value in HOSTILE]
    return [json.dumps(envelope([[["x"]], {}, {}], message_id=fresh_id(), headers=each)).encode() for each in headers]
