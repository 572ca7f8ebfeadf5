"""Enqueueing: one job, a few in one call to Redis, or any number from an iterable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from voicequeue.client.reading import ReadMethods
from voicequeue.client.results import EnqueueItemResult, EnqueueResult, EnqueueSummary, Rejection, item_result
from voicequeue.domain.api_keys import KeyLimits
from voicequeue.domain.job import Job
from voicequeue.domain.portions import split_into_portions, weight
from voicequeue.domain.spec import VoiceJob, parse_spec
from voicequeue.domain.states import State
from voicequeue.errors import InvalidJobError, without_traceback
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.enqueue_call import EnqueueReply
from voicequeue.storage.job_ids import StaleIdsError
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.preview import EnqueuePreview

#: A job to enqueue, or its fields as a mapping (JSON, a row of a file).
JobInput = VoiceJob | Mapping[str, Any]


class EnqueueMethods(ReadMethods):
    """Methods of `VoiceQueue` that enqueue jobs."""

    _source: str
    _key_limits: KeyLimits

    def enqueue(self, job: JobInput) -> Job:
        """Enqueue one job, or return the existing job with the same key and content.

        An item with several songs becomes several jobs; the one that creates the voice is returned.

        Args:
            job: The job, or a mapping of its fields.

        Raises:
            InvalidJobError: A field is missing or invalid, or the named voice is used for another recording in the
                batch. The error names each field.
            KeyConflictError: The key belongs to a job with other content.
            BudgetExceededError: A hard budget does not allow its price.
        """
        return self.get(self._enqueue_one(job).job_id)

    def enqueue_detailed(self, job: JobInput) -> EnqueueResult:
        """Enqueue one job as `enqueue` does, and also return whether it is new, its position and its price.

        Args:
            job: The job, or a mapping of its fields.

        Raises:
            InvalidJobError: A field is missing or invalid, or the named voice is used for another recording in the
                batch. The error names each field.
            KeyConflictError: The key belongs to a job with other content.
            BudgetExceededError: A hard budget does not allow its price.
        """
        entry = self._enqueue_one(job)
        enqueued = self.get(entry.job_id)
        with translated_errors():
            ahead = self._store.indexes.position_in_backlog(
                enqueued.id, enqueued.spec.priority, enqueued.qualified_batch
            )
        if ahead is None and enqueued.state is State.QUEUED:  # it was admitted between the two reads
            enqueued = self.get(enqueued.id)
        price = entry.credits if entry.new_count else parse_spec(job).credits
        return EnqueueResult(
            enqueued, entry.new_count > 0, None if ahead is None else ahead + 1, price, entry.job_ids[1:]
        )

    def _enqueue_one(self, job: JobInput) -> EnqueueItemResult:
        [entry] = self.enqueue_list([job])
        if entry.error is not None:
            raise entry.error
        return entry

    def enqueue_list(self, jobs: Sequence[JobInput]) -> list[EnqueueItemResult]:
        """Enqueue a list of jobs, and return one result for each, in the same order.

        Rejected items have their error in `EnqueueItemResult.error`; the others are enqueued. Redis is called once for
        each 500 jobs or 1,048,576 characters.

        Args:
            jobs: Jobs, or mappings of their fields.
        """
        return [
            entry
            for chunk in split_into_portions(map(self._parse, jobs), weight)
            for entry in _Chunk(self._store, chunk, self._source).entries()
        ]

    def enqueue_many(
        self, jobs: Iterable[JobInput], *, on_reject: Callable[[Rejection], None] | None = None
    ) -> EnqueueSummary:
        """Enqueue any number of jobs in constant memory, and return how many were new, existing and rejected.

        Rejected items do not stop the others. After an error the call can be repeated; jobs that have a key are
        enqueued once.

        Args:
            jobs: Jobs, or mappings of their fields. Read lazily.
            on_reject: Called with each rejected item. None collects them in `EnqueueSummary.rejections`.
        """
        summary, first_index = EnqueueSummary(), 0
        reject = on_reject or summary.rejections.append
        for entries in self._enqueue_chunks(iter(jobs)):
            for index, entry in enumerate(entries, start=first_index):
                summary.add(entry)
                if entry.error is not None:
                    reject(Rejection(index, entry.error))
            first_index += len(entries)
        return summary

    def _enqueue_chunks(self, jobs: Iterator[JobInput]) -> Iterator[list[EnqueueItemResult]]:
        """Yield the results of each chunk. The next chunk is prepared while Redis processes the one before."""
        sent: _Chunk | None = None
        try:
            for items in split_into_portions(map(self._parse, jobs), weight):
                chunk = _Chunk(self._store, items, self._source)
                previous, sent = sent, None
                if previous is not None:
                    yield previous.entries()
                chunk.send()
                sent = chunk
        finally:
            last = sent.entries() if sent is not None else []
        yield last

    def preview(self, jobs: Iterable[JobInput]) -> Iterator[EnqueuePreview]:
        """Yield what `enqueue_many` would do with each job, in the same order, without changing anything.

        A job that shares a voice with an existing or an earlier job is priced at its song alone. Rejected items have
        their error in `EnqueuePreview.error`. Redis is called once for each 500 jobs or 1,048,576 characters.

        Args:
            jobs: Jobs, or mappings of their fields. Read lazily.
        """
        preview = self._store.preview()
        for items in split_into_portions(map(self._parse, jobs), weight):
            with translated_errors():
                previews = iter(preview.preview([item for item in items if isinstance(item, VoiceJob)]))
            yield from (next(previews) if isinstance(item, VoiceJob) else EnqueuePreview(error=item) for item in items)

    def _parse(self, job: JobInput) -> VoiceJob | InvalidJobError:
        try:
            spec = parse_spec(job)
        except InvalidJobError as error:
            return without_traceback(error)
        problems = self._key_limits.problems_of(spec.priority, spec.batch)
        return InvalidJobError(problems) if problems else spec


class _Chunk:
    """The items of one call to Redis. An item is one job, several (one for each song), or invalid."""

    def __init__(self, store: JobStore, items: Sequence[VoiceJob | InvalidJobError], source: str) -> None:
        self._store, self._source = store, source
        self._specs = [item if isinstance(item, InvalidJobError) else item.expand() for item in items]
        with translated_errors():
            self._prepare()

    def _prepare(self) -> None:
        """Derive the ids of the jobs, and prepare the call."""
        store = self._store
        self._items = [
            item if isinstance(item, InvalidJobError) else [(store.job_ids.of(job), job) for job in item]
            for item in self._specs
        ]
        jobs = [job for item in self._items if not isinstance(item, InvalidJobError) for job in item]
        self._call = (
            store.prepare_enqueue(jobs, store.clock(), source=self._source, fingerprint=store.job_ids.fingerprint())
            if jobs
            else None
        )

    def send(self) -> None:
        """Send the call to Redis without waiting for the reply."""
        if self._call is not None:
            self._call.send()

    def entries(self) -> list[EnqueueItemResult]:
        """Return the result of each item; sends the call unless it was sent. Raises StoreUnavailableError.

        If the data in Redis were replaced, the ids are derived from the new secret.
        """
        with translated_errors():
            outcomes = iter(self._outcomes())
        return [
            EnqueueItemResult(error=item)
            if isinstance(item, InvalidJobError)
            else item_result(item, list(islice(outcomes, len(item))))
            for item in self._items
        ]

    def _outcomes(self) -> list[EnqueueReply]:
        if self._call is None:
            return []
        try:
            return self._call.outcomes()
        except StaleIdsError:
            self._store.job_ids.forget()
            self._prepare()
            return self._outcomes()
