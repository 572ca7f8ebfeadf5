"""The voices that were created and can be shared."""

from __future__ import annotations

from collections.abc import Iterator

from voicequeue.client import listing
from voicequeue.client.audited import audited
from voicequeue.client.batches import require_positive
from voicequeue.client.reading import ReadMethods, paged
from voicequeue.client.search import Page
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.personas import Persona


class VoiceMethods(ReadMethods):
    """Methods of `VoiceQueue` that read and forget shared voices."""

    def personas(self) -> Iterator[Persona]:
        """Yield the voices that were created and can be shared, read a page at a time.

        The latest first; those of all namespaces one namespace after the other.
        """
        return paged(self._store.personas.list_all())

    def list_personas(self, *, search: str | None = None, limit: int = 100, cursor: str | None = None) -> Page[Persona]:
        """Return a page of the voices that were created and can be shared, the latest first in each namespace.

        A page may hold fewer than `limit` voices, even none, and still have a next page.

        Args:
            search: Only voices with this text in their id, name, job id or the URL of their recording.
            limit: Maximum number of voices on the page; 1 or more.
            cursor: `Page.cursor` of the previous page. None returns the first page.

        Raises:
            InvalidCursorError: The cursor is not one of this list.
            ValueError: `limit` is below 1.
        """
        require_positive("limit", limit)
        with translated_errors():
            return listing.list_personas(self._store, text=search, limit=limit, cursor=cursor)

    @audited
    def forget_persona(self, persona_id: str) -> bool:
        """Stop sharing a voice that upstream has deleted, and return whether the voice was known.

        Jobs that use the voice already are not changed.

        Args:
            persona_id: Upstream's id of the voice.
        """
        with translated_errors():
            return self._store.personas.forget(persona_id) > 0
