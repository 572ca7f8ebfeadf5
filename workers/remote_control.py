"""Remote control of workers by Celery's broadcasts: which commands they obey, and where they answer. Pure.

Celery carries out every command of every publication, and answers with the worker's rights wherever the publication
says. Here a publication is read into a new one, with nothing in it that these rules do not name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from workers.message_decoding import UnsoundError, publication
from workers.message_validation import JSON

#: The exchange of commands, that of replies, and that of events.
COMMANDS = "celery.pidbox"
REPLIES = "reply.celery.pidbox"
EVENTS = "celeryev"

#: The exchanges whose queues follow from their names alone: bindings in Redis, which others may write, are not read.
UNBOUND = frozenset({COMMANDS, REPLIES, EVENTS})

#: The commands that change nothing, and the flags that each of them takes. Flower, `celery inspect` and `celery status`
#: send them. (`enable_events` changes nothing because a worker always sends them.)
SHOWING: Mapping[str, tuple[str, ...]] = {
    "active": ("safe",),
    "active_queues": (),
    "conf": ("with_defaults",),
    "enable_events": (),
    "ping": (),
    "registered": (),
    "reserved": (),
    "revoked": (),
    "scheduled": (),
    "stats": (),
}

#: What is obeyed as well where Flower may do more than show.
STOPPING: Mapping[str, tuple[str, ...]] = {"shutdown": ()}

#: The largest publications (bytes): of commands, and of events, many of which Celery sends at once.
COMMAND_MAX = 64_000
EVENTS_MAX = 2_000_000

_DESTINATIONS_MAX = 1_000
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TICKET_MAX = 100
_NUMBER_MAX = 2**62


def reply_queue(routing_key: Any) -> str | None:
    """Return the queue of replies that a routing key names; None where it names none."""
    return f"{routing_key}.{REPLIES}" if isinstance(routing_key, str) and _UUID.fullmatch(routing_key) else None


def is_reply_queue(queue: str) -> bool:
    """Return whether this is the name of a queue of replies."""
    return reply_queue(queue.removesuffix(f".{REPLIES}")) == queue


def received(data: bytes, exchange: str, *, may_stop: bool = False) -> dict[str, Any]:
    """Return the envelope to deliver for a publication on this exchange. Raises UnsoundError."""
    at_most = COMMAND_MAX if exchange == COMMANDS else EVENTS_MAX
    if len(data) > at_most:
        raise UnsoundError(f"it has {len(data):,} bytes; at most {at_most:,} are allowed")
    envelope, payload = publication(data)
    if exchange == EVENTS:
        for event in payload if isinstance(payload, list) else [payload]:
            _check_event(event)
    if exchange != COMMANDS:
        return envelope
    body = json.dumps(command(payload, {**SHOWING, **STOPPING} if may_stop else SHOWING))
    return {"body": body, "content-type": JSON, "content-encoding": "utf-8", "headers": {}, "properties": {}}


def _check_event(event: Any) -> None:
    """Raise UnsoundError where Celery, which sorts events by these fields, could not."""
    if not isinstance(event, dict) or not all(isinstance(event.get(name), str) for name in ("type", "hostname")):
        raise UnsoundError("an event must be an object with the texts type and hostname")
    for name in ("clock", "timestamp", "pid", "utcoffset"):
        number = event.get(name, 0)
        if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) < _NUMBER_MAX:
            raise UnsoundError(f"an event's {name} must be a number")


def command(payload: Any, allowed: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the command, reduced to what is allowed. Raises UnsoundError."""
    if not isinstance(payload, dict):
        raise UnsoundError("the command is no object")
    method, arguments = payload.get("method"), payload.get("arguments")
    if not isinstance(method, str) or method not in allowed:
        raise UnsoundError(f"workers do not obey the command {repr(method)[:60]}")
    if payload.get("pattern") or payload.get("matcher"):
        raise UnsoundError("name workers by destination; patterns are not allowed")
    given = arguments if isinstance(arguments, dict) else {}
    flags = {name: given[name] for name in allowed[method] if isinstance(given.get(name), bool)}
    return {"method": method, "arguments": flags, "destination": _destination(payload), **_reply(payload)}


def _destination(payload: Mapping[str, Any]) -> list[str] | None:
    """Return the names of the workers that are meant; None: all of them."""
    names = payload.get("destination")
    if names is None:
        return None
    if (
        not isinstance(names, list)
        or len(names) > _DESTINATIONS_MAX
        or not all(isinstance(each, str) for each in names)
    ):
        raise UnsoundError(f"destination must be a list of at most {_DESTINATIONS_MAX:,} names")
    return names


def _reply(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return where to answer, and by which ticket; {} where no answer is wanted."""
    address, ticket = payload.get("reply_to"), payload.get("ticket")
    if address is None:
        return {}
    key = address.get("routing_key") if isinstance(address, dict) and address.get("exchange") == REPLIES else None
    if reply_queue(key) is None:
        raise UnsoundError(f"replies go only through {REPLIES} to a queue of it that a UUID names")
    if not isinstance(ticket, str) or len(ticket) > _TICKET_MAX:
        raise UnsoundError(f"ticket must be a text of at most {_TICKET_MAX} characters")
    return {"reply_to": {"exchange": REPLIES, "routing_key": key}, "ticket": ticket}
