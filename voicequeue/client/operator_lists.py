"""Paginated lists for operators: callbacks, voices and rejected messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import dropwhile, islice
from typing import TypeVar

from voicequeue.client.search import CHUNK, Page, PagePosition
from voicequeue.storage.callbacks import Callback
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.personas import Persona
from voicequeue.storage.rejected_messages import RejectedMessage

T = TypeVar("T")

#: An entry of an index: the member and its score.
_Entry = tuple[str, str]


def list_callbacks(
    store: JobStore, *, undelivered: bool, batch: str | None, limit: int, cursor: str | None
) -> Page[Callback]:
    """Return a page of the callbacks: undelivered ones latest first, pending ones by the time they are due.

    Raises InvalidCursorError.
    """
    index = "callbacks:undelivered" if undelivered else "callbacks:pending"
    qualified = None if batch is None else store.scope.qualify(batch)

    def read(after: _Entry | None, count: int) -> list[_Entry]:
        return store.indexes.read_page(index, after, count, latest_first=undelivered)

    def load(ids: Sequence[str]) -> list[Callback | None]:
        callbacks = {callback.id: callback for callback in store.callbacks.get(ids)}
        present = (callbacks.get(callback_id) for callback_id in ids)
        return [it if it is not None and qualified in (None, it.qualified_batch) else None for it in present]

    return _page(index, read, load, limit=limit, cursor=cursor)


def list_personas(store: JobStore, *, text: str | None, limit: int, cursor: str | None) -> Page[Persona]:
    """Return a page of the voices, newest first. Raises InvalidCursorError."""

    def read(after: _Entry | None, count: int) -> list[_Entry]:
        return store.indexes.read_newest("voices", after, count)

    def load(voices: Sequence[str]) -> list[Persona | None]:
        return [it if it is not None and text in (None, *_names(it)) else None for it in store.personas.get(voices)]

    return _page("voices", read, load, limit=limit, cursor=cursor)


def _names(persona: Persona) -> tuple[str | None, ...]:
    return (persona.persona_id, persona.name, persona.audio_url, persona.job_id)


def list_rejected_messages(store: JobStore, *, limit: int, cursor: str | None) -> Page[RejectedMessage]:
    """Return a page of the rejected messages, newest first. Raises InvalidCursorError."""
    position = PagePosition.parse(cursor, "rejected_messages")
    messages = store.rejected_messages.newest_first()
    if position.after is not None:
        last_at, mark = float(position.score), position.member
        messages = dropwhile(lambda it: it.rejected_at >= last_at and _mark(it) != mark, messages)
        messages = dropwhile(lambda it: _mark(it) == mark, messages)
    page = list(islice(messages, limit + 1))
    last = page[limit - 1] if len(page) > limit else None
    end = None if last is None else PagePosition("rejected_messages", _mark(last), repr(last.rejected_at)).text()
    return Page(tuple(page[:limit]), end)


def _mark(message: RejectedMessage) -> str:
    """Return the name of a message in a cursor: its own id may be any text."""
    identity = (message.rejected_at, message.namespace, message.message_id, message.reason)
    return blake2b(repr(identity).encode(), digest_size=10).hexdigest()


def _page(
    index: str,
    read: Callable[[_Entry | None, int], list[_Entry]],
    load: Callable[[Sequence[str]], list[T | None]],
    *,
    limit: int,
    cursor: str | None,
) -> Page[T]:
    """Return a page of what `load` returns for the members of an index; None is left out.

    The cursor is the last item of the page, never an entry that was left out: it may belong to another namespace.
    Raises InvalidCursorError.
    """
    after = PagePosition.parse(cursor, index).after
    items: list[tuple[_Entry, T]] = []
    count = limit + 1
    while len(items) <= limit:
        entries = read(after, count)
        loaded = load([member for member, _ in entries])
        items += [(entry, item) for entry, item in zip(entries, loaded, strict=True) if item is not None]
        if len(entries) < count:
            break
        after, count = entries[-1], CHUNK
    page = items[:limit]
    end = PagePosition(index, *page[-1][0]).text() if len(items) > limit else None
    return Page(tuple(item for _, item in page), end)
