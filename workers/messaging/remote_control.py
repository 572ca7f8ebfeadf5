"""Remote control of workers by Celery's broadcasts: the commands that they accept, and the queues they reply to. Pure.

Celery runs every command of every broadcast, and replies with the worker's permissions to any queue that the broadcast
names. Here a broadcast is rebuilt from the parts that these rules allow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from workers.messaging.message_decoding import InvalidMessageError, decode_publication
from workers.messaging.message_validation import JSON

#: The exchanges of commands, replies and events.
COMMANDS = "celery.pidbox"
REPLIES = "reply.celery.pidbox"
EVENTS = "celeryev"

#: The exchanges whose queues are derived from names: their bindings in Redis, which others may write, are not read.
UNBOUND = frozenset({COMMANDS, REPLIES, EVENTS})

#: The commands that change nothing, with the flags that each accepts. Flower, `celery inspect` and `celery status` send
#: them. (`enable_events` changes nothing because workers always send events.)
READ_ONLY_COMMANDS: Mapping[str, tuple[str, ...]] = {
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

#: The commands that are also accepted if Flower is not read-only.
STOP_COMMANDS: Mapping[str, tuple[str, ...]] = {"shutdown": ()}

#: The maximum size of a broadcast in bytes: of a command, and of events, which Celery sends many at once.
COMMAND_MAX = 64_000
EVENTS_MAX = 2_000_000

_DESTINATIONS_MAX = 1_000
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TICKET_MAX = 100
_NUMBER_MAX = 2**62


def reply_queue(routing_key: Any) -> str | None:
    """Return the reply queue that a routing key names; None for an invalid key."""
    return f"{routing_key}.{REPLIES}" if isinstance(routing_key, str) and _UUID.fullmatch(routing_key) else None


def is_reply_queue(queue: str) -> bool:
    """Return whether this is the name of a reply queue."""
    return reply_queue(queue.removesuffix(f".{REPLIES}")) == queue


def decode_broadcast(data: bytes, exchange: str, *, may_stop: bool = False) -> dict[str, Any]:
    """Return the envelope to deliver for a broadcast on this exchange. Raises InvalidMessageError."""
    max_bytes = COMMAND_MAX if exchange == COMMANDS else EVENTS_MAX
    if len(data) > max_bytes:
        raise InvalidMessageError(f"it has {len(data):,} bytes; at most {max_bytes:,} are allowed")
    envelope, payload = decode_publication(data)
    if exchange == EVENTS:
        for event in payload if isinstance(payload, list) else [payload]:
            _check_event(event)
    if exchange != COMMANDS:
        return envelope
    body = json.dumps(
        allowed_command(payload, {**READ_ONLY_COMMANDS, **STOP_COMMANDS} if may_stop else READ_ONLY_COMMANDS)
    )
    return {"body": body, "content-type": JSON, "content-encoding": "utf-8", "headers": {}, "properties": {}}


def _check_event(event: Any) -> None:
    """Validate the fields by which Celery sorts events. Raises InvalidMessageError."""
    if not isinstance(event, dict) or not all(isinstance(event.get(name), str) for name in ("type", "hostname")):
        raise InvalidMessageError("an event must be an object with type and hostname as text")
    for name in ("clock", "timestamp", "pid", "utcoffset"):
        number = event.get(name, 0)
        if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) < _NUMBER_MAX:
            raise InvalidMessageError(f"an event's {name} must be a number")


def allowed_command(payload: Any, allowed: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the command, reduced to the allowed parts. Raises InvalidMessageError."""
    if not isinstance(payload, dict):
        raise InvalidMessageError("the command must be an object")
    method, arguments = payload.get("method"), payload.get("arguments")
    if not isinstance(method, str) or method not in allowed:
        raise InvalidMessageError(f"workers do not accept the command {repr(method)[:60]}")
    if payload.get("pattern") or payload.get("matcher"):
        raise InvalidMessageError("name workers by destination; patterns are not allowed")
    options = arguments if isinstance(arguments, dict) else {}
    flags = {name: options[name] for name in allowed[method] if isinstance(options.get(name), bool)}
    return {"method": method, "arguments": flags, "destination": _destination(payload), **_reply(payload)}


def _destination(payload: Mapping[str, Any]) -> list[str] | None:
    """Return the names of the addressed workers; None for all."""
    names = payload.get("destination")
    if names is None:
        return None
    if (
        not isinstance(names, list)
        or len(names) > _DESTINATIONS_MAX
        or not all(isinstance(name, str) for name in names)
    ):
        raise InvalidMessageError(f"destination must be a list of at most {_DESTINATIONS_MAX:,} names")
    return names


def _reply(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reply queue and the ticket; {} if no reply is requested."""
    address, ticket = payload.get("reply_to"), payload.get("ticket")
    if address is None:
        return {}
    key = address.get("routing_key") if isinstance(address, dict) and address.get("exchange") == REPLIES else None
    if reply_queue(key) is None:
        raise InvalidMessageError(f"reply_to must name a queue of {REPLIES} by a UUID")
    if not isinstance(ticket, str) or len(ticket) > _TICKET_MAX:
        raise InvalidMessageError(f"ticket must be text of at most {_TICKET_MAX} characters")
    return {"reply_to": {"exchange": REPLIES, "routing_key": key}, "ticket": ticket}
