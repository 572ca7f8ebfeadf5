"""Enqueueing: one job, or any number from an iterable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from voicequeue.client.reading import ReadMethods
from voicequeue.client.results import (
    EnqueuedJob,
    EnqueueItemResult,
    EnqueueSummary,
    enqueued_job,
    item_result,
    new_job,
)
from voicequeue.domain.api_keys import KeyLimits
from voicequeue.domain.claims import EnqueueOutcome
from voicequeue.domain.job import Job
from voicequeue.domain.portions import split_into_portions, weight
from voicequeue.domain.spec import VoiceJob, parse_spec
from voicequeue.errors import InvalidJobError, Problem, without_traceback
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.enqueue_call import EnqueueCall, EnqueueReply
from voicequeue.storage.job_ids import StaleIdsError
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.preview import EnqueuePreview

#: A job to enqueue, or its fields as a mapping (JSON, a row of a file).
JobInput = VoiceJob | Mapping[str, Any]


class EnqueueMethods(ReadMethods):
    """Methods of `VoiceQueue` that enqueue jobs."""

    _source: str
    _key_limits: KeyLimits

    def enqueue(self, job: JobInput) -> EnqueuedJob:
        """Enqueue one job, or return the existing job with the same key and content.

        An item with several songs becomes several jobs; the one that creates the voice is returned.

        Args:
            job: The job, or a mapping of its fields.

        Raises:
            InvalidJobError: A field is missing or invalid, or the named voice is used for another recording in the
                batch. The error names each field.
            KeyConflictError: The key belongs to a job with other content.
            ErasedError: The key or the recording was erased at the request of a person.
            BudgetExceededError: A hard budget does not allow its price.
        """
        spec = self._parse(job)
        if isinstance(spec, InvalidJobError):
            raise spec
        chunk = _Chunk(self._store, [spec], self._source)
        chunk.send()
        expected_job = chunk.expected_job()  # while Redis writes it
        [result] = chunk.results(0)
        if result.error is not None:
            raise result.error
        return chunk.as_expected(expected_job) or enqueued_job(self.get(result.job_id), result, spec)

    def enqueue_many(
        self, jobs: Iterable[JobInput], *, on_result: Callable[[EnqueueItemResult], object] | None = None
    ) -> EnqueueSummary:
        """Enqueue any number of jobs in constant memory, and return how many were new, existing and rejected.

        Rejected items do not stop the others. After an error the call can be repeated; jobs that have a key are
        enqueued once. Redis is called once for each 500 jobs or 1,048,576 characters.

        Args:
            jobs: Jobs, or mappings of their fields. Read lazily.
            on_result: Called with the result of each item, in order, such as `results.append`. None collects those of
                rejected items in `EnqueueSummary.rejections`.

        Raises:
            InvalidJobError: `jobs` is one job.
        """
        summary = EnqueueSummary()
        for results in self._enqueue_chunks(several(jobs)):
            for result in results:
                summary.take(result, on_result)
        return summary

    def _enqueue_chunks(self, jobs: Iterator[JobInput]) -> Iterator[list[EnqueueItemResult]]:
        """Yield the results of each chunk. The next chunk is prepared while Redis processes the one before."""
        sent, first_index = _Chunk(self._store, [], self._source), 0
        try:
            for items in split_into_portions(map(self._parse, jobs), weight):
                chunk = _Chunk(self._store, items, self._source)
                previous, sent = sent, _Chunk(self._store, [], self._source)
                yield previous.results(first_index)
                first_index += len(previous)
                chunk.send()
                sent = chunk
        finally:
            last = sent.results(first_index)
        yield last

    def position(self, job: Job) -> int | None:
        """Return the position of a job among the queued jobs of the namespace, from 1; None if it is not queued now.

        Args:
            job: The job, as `enqueue` or `get` returned it.
        """
        with translated_errors():
            ahead = self._store.indexes.position_in_backlog(job.id, job.spec.priority, job.qualified_batch)
        return None if ahead is None else ahead + 1

    def preview(self, jobs: Iterable[JobInput]) -> Iterator[EnqueuePreview]:
        """Yield what `enqueue_many` would do with each job, in the same order, without changing anything.

        A job that shares a voice with an existing or an earlier job is priced at its song alone. Rejected items have
        their error in `EnqueuePreview.error`. Redis is called once for each 500 jobs or 1,048,576 characters.

        Args:
            jobs: Jobs, or mappings of their fields. Read lazily.
        """
        preview = self._store.preview()
        for items in split_into_portions(map(self._parse, several(jobs)), weight):
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


def several(jobs: Iterable[JobInput]) -> Iterator[JobInput]:
    """Return an iterator of the jobs. Raises InvalidJobError for one job, which could be iterated, too."""
    if isinstance(jobs, VoiceJob | Mapping | str | bytes):
        raise InvalidJobError([Problem("", "must be an iterable of jobs; enqueue one job with `enqueue`")])
    return iter(jobs)


class _Chunk:
    """The items of one call to Redis. An item is one job, several (one for each song), or invalid."""

    def __init__(self, store: JobStore, items: Sequence[VoiceJob | InvalidJobError], source: str) -> None:
        self._store, self._source = store, source
        self._specs = [item if isinstance(item, InvalidJobError) else item.expand() for item in items]
        self._outcomes: list[EnqueueReply] = []
        with translated_errors():
            self._prepare()

    def __len__(self) -> int:
        return len(self._specs)

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

    def results(self, first_index: int) -> list[EnqueueItemResult]:
        """Return the result of each item, counted from `first_index`; sends the call unless it was sent. Raises
        StoreUnavailableError.

        If the data in Redis were replaced, the ids are derived from the new secret.
        """
        with translated_errors():
            self._outcomes = self._read_outcomes()
        outcomes = iter(self._outcomes)
        return [
            EnqueueItemResult(index, error=item)
            if isinstance(item, InvalidJobError)
            else item_result(index, item, list(islice(outcomes, len(item))))
            for index, item in enumerate(self._items, start=first_index)
        ]

    def expected_job(self) -> EnqueuedJob | None:
        """Return the only job as it is if the call enqueues it; None if there are others."""
        match self._items, self._call:
            case [[(job_id, spec)]], EnqueueCall() as call:
                return new_job(self._store.new_job(job_id, spec, call.now, self._source))
        return None

    def as_expected(self, job: EnqueuedJob | None) -> EnqueuedJob | None:
        """Return the expected job if the call has enqueued it; None if only Redis knows what it is now."""
        match self._items, self._outcomes:
            case [[(job_id, _)]], [EnqueueOutcome.NEW] if job is not None and job.id == job_id:
                return job
        return None

    def _read_outcomes(self) -> list[EnqueueReply]:
        if self._call is None:
            return []
        try:
            return self._call.outcomes()
        except StaleIdsError:
            self._store.job_ids.forget()
            self._prepare()
            return self._read_outcomes()
