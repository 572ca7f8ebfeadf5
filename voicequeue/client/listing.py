"""Paginated lists of callbacks, voices and rejected messages. A cursor marks where the next page starts."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import chain, dropwhile
from math import isnan
from typing import TypeVar

from voicequeue.client.search import EXAMINED_MAX, Page
from voicequeue.domain.namespaces import named_in
from voicequeue.errors import InvalidCursorError
from voicequeue.storage.callbacks import Callback
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.personas import Persona
from voicequeue.storage.rejected_messages import RejectedMessage

T = TypeVar("T")

#: A position: the index, and a member of it with its score.
Position = tuple[str, str, float]


def list_callbacks(
    store: JobStore, *, undelivered: bool, batch: str | None, text: str | None, limit: int, cursor: str | None
) -> Page[Callback]:
    """Return a page of callbacks: of a batch, in whose id, type, job or last error the text occurs.

    Raises InvalidCursorError.
    """
    index = "undelivered" if undelivered else "pending"
    start = _decode(cursor, [index])
    after = None if start is None else start[1:]
    entries = (((index, *at), it) for at, it in store.callbacks.listed(undelivered=undelivered, after=after))
    owner = named_in(store.scope.namespace, batch) if batch else None

    def matches(callback: Callback) -> bool:
        is_of_batch = owner in (None, (callback.namespace, callback.batch))
        return is_of_batch and _mentions(text, callback.id, callback.type, callback.job_id, callback.last_error)

    return _page(entries, matches, limit)


def list_personas(store: JobStore, *, text: str | None, limit: int, cursor: str | None) -> Page[Persona]:
    """Return a page of voices, newest first in each namespace: in whose id, name, job or recording the text occurs.

    Raises InvalidCursorError.
    """
    namespaces = sorted(store.namespaces())
    start = _decode(cursor, namespaces)
    later = namespaces if start is None else [name for name in namespaces if name > start[0]]
    starts = [*([] if start is None else [(start[0], start[1:])]), *((name, None) for name in later)]
    entries = chain.from_iterable(_of_namespace(store, name, after) for name, after in starts)
    return _page(entries, lambda it: _mentions(text, it.persona_id, it.name, it.job_id, it.audio_url), limit)


def _of_namespace(
    store: JobStore, namespace: str, after: tuple[str, float] | None
) -> Iterator[tuple[Position, Persona]]:
    return (((namespace, *at), persona) for at, persona in store.personas.listed(namespace, after))


def list_rejected_messages(
    store: JobStore, *, message_id: str | None, limit: int, cursor: str | None
) -> Page[RejectedMessage]:
    """Return a page of rejected messages, newest first. Raises InvalidCursorError."""
    start = _decode(cursor, ["rejected_messages"])
    rejected = store.rejected_messages
    messages = rejected.newest_first() if message_id is None else iter(rejected.with_id(message_id))
    if start is not None:
        _, mark, last_at = start
        messages = dropwhile(lambda it: it.rejected_at >= last_at and _mark(it) != mark, messages)
        messages = dropwhile(lambda it: _mark(it) == mark, messages)
    entries = ((("rejected_messages", _mark(it), it.rejected_at), it) for it in messages)
    return _page(entries, lambda _: True, limit)


def _mark(message: RejectedMessage) -> str:
    """Return the name of a message in a cursor: its own id may be any text."""
    identity = (message.rejected_at, message.namespace, message.message_id, message.reason)
    return blake2b(repr(identity).encode(), digest_size=10).hexdigest()


def _mentions(text: str | None, *values: str | None) -> bool:
    return not text or any(text.lower() in (value or "").lower() for value in values)


def _page(entries: Iterator[tuple[Position, T]], matches: Callable[[T], bool], limit: int) -> Page[T]:
    """Return the first `limit` matches; fewer, even none, if few of many match."""
    items: list[T] = []
    last: Position | None = None
    for examined, (position, entry) in enumerate(entries):
        if len(items) == limit or examined == EXAMINED_MAX:
            return Page(tuple(items), None if last is None else _encode(last))
        if matches(entry):
            items.append(entry)
        last = position
    return Page(tuple(items), None)


def _encode(position: Position) -> str:
    text = json.dumps(position, separators=(",", ":"))
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str | None, indexes: list[str]) -> Position | None:
    """Decode a cursor of one of these indexes. Raises InvalidCursorError."""
    if cursor is None:
        return None
    try:
        text = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        index, member, score = json.loads(text, parse_int=float)
    except (ValueError, TypeError, RecursionError):
        raise InvalidCursorError from None
    if not (isinstance(member, str) and isinstance(score, float) and not isnan(score) and index in indexes):
        raise InvalidCursorError
    return index, member, score
