"""Enqueueing: one job, a few in one call to Redis, or any number from an iterable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from voicequeue.client.reading import ReadMethods
from voicequeue.client.results import Entry, Placed, Receipt, Rejection, entered
from voicequeue.domain.job import Job, State
from voicequeue.domain.portions import portions, weight
from voicequeue.domain.spec import VoiceJob, parse
from voicequeue.errors import InvalidJob, detached
from voicequeue.storage.connection.errors import reachable
from voicequeue.storage.job_store import Store
from voicequeue.storage.preview import Foreseen

#: A job to enqueue, or its fields as a mapping (JSON, a row of a file).
Enqueueable = VoiceJob | Mapping[str, Any]

#: The jobs of one item, with their ids; or the error of an invalid item.
_ParsedItem = list[tuple[str, VoiceJob]] | InvalidJob


class EnqueueMethods(ReadMethods):
    """Methods of `VoiceQueue` that enqueue jobs."""

    _origin: str

    def enqueue(self, job: Enqueueable) -> Job:
        """Enqueue one job, or return the existing job with the same key and content.

        An item with several songs becomes several jobs; the one that creates the voice is returned.

        Raises:
            InvalidJob: A field is missing or wrong; the error names each.
            KeyConflict: The key belongs to a job with other content.
        """
        return self.get(self._enqueue_one(job).job_id)

    def place(self, job: Enqueueable) -> Placed:
        """Enqueue one job as `enqueue` does, and also return whether it is new, its position and its price.

        Raises:
            InvalidJob: A field is missing or wrong; the error names each.
            KeyConflict: The key belongs to a job with other content.
        """
        entry = self._enqueue_one(job)
        enqueued = self.get(entry.job_id)
        with reachable():
            ahead = self._store.lookup.ahead(enqueued.id, enqueued.spec.priority, enqueued.spec.batch or "")
        if ahead is None and enqueued.state is State.QUEUED:  # it was admitted between the two reads
            enqueued = self.get(enqueued.id)
        price = entry.credits if entry.new else parse(job).credits
        return Placed(enqueued, entry.new > 0, None if ahead is None else ahead + 1, price, entry.job_ids[1:])

    def _enqueue_one(self, job: Enqueueable) -> Entry:
        [entry] = self.enqueue_at_once([job])
        if entry.error is not None:
            raise entry.error
        return entry

    def enqueue_at_once(self, jobs: Sequence[Enqueueable]) -> list[Entry]:
        """Enqueue a list of jobs, and return one result for each, in the same order.

        Invalid items are reported in their result; the others are enqueued. Redis is called once for each 500 jobs
        or 1,048,576 characters.
        """
        return [
            entry
            for chunk in portions(map(_parse, jobs), weight)
            for entry in _Chunk(self._store, chunk, self._origin).entries()
        ]

    def enqueue_many(
        self, jobs: Iterable[Enqueueable], *, on_reject: Callable[[Rejection], None] | None = None
    ) -> Receipt:
        """Enqueue any number of jobs in constant memory, and return how many were new, known and rejected.

        Rejected items do not stop the others. After an error the call can be repeated; jobs that have a key are
        enqueued once.

        Args:
            jobs: Jobs, or mappings of their fields. Read lazily.
            on_reject: Called with each rejected item. Without it, they are collected in `Receipt.rejections`.
        """
        receipt, first_index = Receipt(), 0
        reject = on_reject or receipt.rejections.append
        for entries in self._enqueue_chunks(iter(jobs)):
            for index, entry in enumerate(entries, start=first_index):
                receipt.add(entry)
                if entry.error is not None:
                    reject(Rejection(index, entry.error))
            first_index += len(entries)
        return receipt

    def _enqueue_chunks(self, jobs: Iterator[Enqueueable]) -> Iterator[list[Entry]]:
        """Yield the results of each chunk. The next chunk is prepared while Redis processes the one before."""
        sent: _Chunk | None = None
        try:
            for items in portions(map(_parse, jobs), weight):
                chunk = _Chunk(self._store, items, self._origin)
                previous, sent = sent, None
                if previous is not None:
                    yield previous.entries()
                chunk.send()
                sent = chunk
        finally:
            last = sent.entries() if sent is not None else []
        yield last

    def preview(self, jobs: Iterable[Enqueueable]) -> Iterator[Foreseen]:
        """Yield what `enqueue_many` would do with each job, in the same order, without changing anything.

        A job that shares a voice with an existing or an earlier job is priced at its song alone. Redis is called once
        for each 500 jobs or 1,048,576 characters.
        """
        preview = self._store.preview()
        for items in portions(map(_parse, jobs), weight):
            with reachable():
                previews = iter(preview.foresee([item for item in items if isinstance(item, VoiceJob)]))
            yield from (next(previews) if isinstance(item, VoiceJob) else Foreseen(error=item) for item in items)


class _Chunk:
    """The items of one call to Redis. An item is one job, several (one for each song), or invalid."""

    def __init__(self, store: Store, items: Sequence[VoiceJob | InvalidJob], origin: str) -> None:
        self._items = [_with_ids(item) for item in items]
        jobs = [job for item in self._items if not isinstance(item, InvalidJob) for job in item]
        with reachable():
            self._call = store.enqueueing(jobs, store.clock(), origin=origin) if jobs else None

    def send(self) -> None:
        """Send the call to Redis without waiting for the reply."""
        if self._call is not None:
            self._call.begin()

    def entries(self) -> list[Entry]:
        """Return the result of each item; sends the call unless it was sent. Raises StoreUnreachable."""
        with reachable():
            outcomes = iter(self._call.outcomes() if self._call is not None else [])
        return [
            Entry(error=item) if isinstance(item, InvalidJob) else entered(item, list(islice(outcomes, len(item))))
            for item in self._items
        ]


def _parse(job: Enqueueable) -> VoiceJob | InvalidJob:
    try:
        return parse(job)
    except InvalidJob as error:
        return detached(error)


def _with_ids(item: VoiceJob | InvalidJob) -> _ParsedItem:
    return item if isinstance(item, InvalidJob) else [(job.id(), job) for job in item.each()]
