"""Reading batches: one, all, a page of them, or their names."""

from __future__ import annotations

from itertools import islice

from voicequeue.client import search as batch_lists
from voicequeue.client.search import Page
from voicequeue.client.sorted_search import Sort
from voicequeue.domain.portions import PORTION_JOBS_MAX
from voicequeue.domain.status import Batch
from voicequeue.errors import BatchNotFoundError
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.job_store import JobStore


def require_positive(name: str, value: float) -> None:
    """Raise ValueError, which names the parameter, unless the value is positive."""
    if value <= 0:
        raise ValueError(f"{name}: {value:g} must be above 0")


class BatchMethods:
    """Methods of `VoiceQueue` that read batches."""

    _store: JobStore

    def batch(self, name: str, *, or_empty: bool = False) -> Batch:
        """Return the counters and limits of a batch.

        Args:
            name: Name of the batch.
            or_empty: True returns also a batch without jobs, with the limits that were set for it.

        Raises:
            BatchNotFoundError: No job is in this batch.
            ValueError: The name is invalid (with `or_empty`).
        """
        with translated_errors():
            if or_empty:
                self._store.checked_batch(name)
            batch = self._store.batch(name, or_empty=or_empty)
        if batch is None:
            raise BatchNotFoundError(name)
        return batch

    def batches(self) -> list[Batch]:
        """Return every batch, the newest first."""
        with translated_errors():
            names = iter(self._store.batches())
            batches: list[Batch | None] = []
            while portion := list(islice(names, PORTION_JOBS_MAX)):
                batches += self._store.read_batches(portion)
        return [batch for batch in batches if batch is not None]  # None: purged since its name was read

    def list_batches(
        self,
        *,
        search: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        sort: Sort = Sort.CREATED_DESC,
    ) -> Page[Batch]:
        """Return a page of the batches, the newest first.

        Args:
            search: Only batches whose names contain this text, in upper or lower case. None lists all.
            limit: Maximum number of batches on the page; 1 or more.
            cursor: `Page.cursor` of the previous page. None returns the first page.
            sort: `-created`, or `created` for the oldest first.

        Raises:
            ValueError: `limit` is below 1, or batches cannot be sorted in this order.
            InvalidCursorError: The cursor is not one of this list.
        """
        require_positive("limit", limit)
        if sort not in Sort.of_batches():
            raise ValueError(f"sort must be one of {', '.join(Sort.of_batches())}, not {sort}")
        with translated_errors():
            latest_first = Sort(sort).is_descending
            return batch_lists.list_batches(
                self._store, limit=limit, cursor=cursor, text=search, latest_first=latest_first
            )

    def count_batches(self, *, search: str | None = None) -> int:
        """Return the number of batches.

        Args:
            search: Only batches whose names contain this text, in upper or lower case. None counts all.
        """
        with translated_errors():
            return batch_lists.count_batches(self._store, search)

    def batch_names(self, prefix: str = "", *, limit: int = 100) -> list[str]:
        """Return the names of batches that begin with a prefix, the newest first; cheaper than the batches themselves.

        Args:
            prefix: The beginning of the names.
            limit: Maximum number of names; 1 or more.

        Raises:
            ValueError: `limit` is below 1.
        """
        require_positive("limit", limit)
        with translated_errors():
            return batch_lists.batch_names(self._store, prefix, limit=limit)
