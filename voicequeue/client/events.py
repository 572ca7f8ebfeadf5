"""Waiting for jobs, and the stream of their state transitions."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import TypeVar

from voicequeue.client.reading import ReadMethods
from voicequeue.client.waiting import Awaited, AwaitedBatch, AwaitedJob, keys_of
from voicequeue.domain.job import Event, Job
from voicequeue.domain.status import Batch
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.connection.retry import retry_until

T = TypeVar("T")

#: How long one call to Redis blocks for events (seconds).
_BLOCK_S = 5.0

#: How often a wait reads what it waits for even without an event, in case that was trimmed from the stream (seconds).
_REREAD_S = 5.0


_EVENT_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")


class EventMethods(ReadMethods):
    """Methods of `VoiceQueue` that wait for jobs and follow events."""

    def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """Wait until the job is settled or `unsure`, and return it.

        Args:
            job_id: Id of the job.
            timeout: Maximum time to wait, in seconds, retries of Redis included. None has no limit.

        Raises:
            JobNotFoundError: No job has this id.
            WaitTimeoutError: The job did not settle in time.
        """
        return self._await(AwaitedJob(job_id), timeout)

    def wait_batch(self, batch: str, *, timeout: float | None = None) -> Batch:
        """Wait until each job of the batch is settled or `unsure`, and return the batch with its counters.

        A batch that has stopped itself is returned as soon as none of its jobs is in flight: `Batch.stop` says why.

        Args:
            batch: Name of the batch.
            timeout: Maximum time to wait, in seconds, retries of Redis included. None has no limit.

        Raises:
            BatchNotFoundError: No job is in this batch.
            WaitTimeoutError: The batch did not settle in time.
        """
        return self._await(AwaitedBatch(batch, self._store.scope), timeout)

    def _await(self, awaited: Awaited[T], timeout: float | None) -> T:
        deadline = None if timeout is None else time.monotonic() + timeout
        with retry_until(deadline):
            with translated_errors():
                after = self._store.last_event_id()
            while True:
                value, is_over = awaited.read(self)
                if is_over:
                    return value
                after = self._await_event(awaited, after, deadline)

    def _await_event(self, awaited: Awaited[object], after: str, deadline: float | None, /) -> str:
        """Block until an event that concerns it, or the next reread; return the id of the last event that was read."""
        reread_at = time.monotonic() + _REREAD_S
        while (now := time.monotonic()) < reread_at:
            if deadline is not None and now >= deadline:
                raise awaited.timed_out()
            until = reread_at if deadline is None else min(reread_at, deadline)
            with translated_errors():
                events = self._store.events(after, wait_s=until - now)
            after = events[-1].id if events else after
            if any(awaited.key in keys_of(event) for event in events):
                break
        return after

    def watch(self, *, batch: str | None = None, after: str | None = None) -> Iterator[Event]:
        """Yield events without end, as they happen.

        Args:
            batch: Yield only events of this batch. None yields the events of all jobs.
            after: Id of the event to continue after; `0-0` starts with the oldest event that is kept. None starts with
                the next event.

        Raises:
            ValueError: `after` is not an event id.
        """
        last_id = self.last_event_id() if after is None else event_id(after)
        while True:
            events, last_id = self._read_events(last_id, wait_s=_BLOCK_S)
            yield from (event for event in events if self._is_event_of(event, batch))

    def events(self, after: str, *, wait_s: float = 0.0) -> list[Event]:
        """Return the events of all jobs of the namespace after the given one; an empty list if there are none yet.

        About the last 20,000 events of all namespaces are kept.

        Args:
            after: Id of the last event that the caller has; `0-0` for all that are kept.
            wait_s: Maximum time to block until the first event, in seconds. 0 returns at once.

        Raises:
            ValueError: `after` is not an event id.
        """
        deadline, last_id = time.monotonic() + wait_s, event_id(after)
        while True:
            events, read_id = self._read_events(last_id, wait_s=max(0.0, deadline - time.monotonic()))
            if events or (read_id == last_id and time.monotonic() >= deadline):
                return events
            last_id = read_id  # all of these were of other namespaces

    def _read_events(self, after: str, *, wait_s: float) -> tuple[list[Event], str]:
        """Return the events of the namespace among the next ones, and the id of the last event that was read."""
        with translated_errors():
            events = self._store.events(after, wait_s=wait_s)
        scope = self._store.scope
        own = [event for event in events if scope.contains(event.qualified_batch)]
        return own, events[-1].id if events else after

    def _is_event_of(self, event: Event, batch: str | None) -> bool:
        """Return whether an event is of this batch (None: of any)."""
        return batch is None or event.qualified_batch == self._store.scope.qualify(batch)

    def first_event_id(self) -> str:
        """Return the id of the oldest event that is kept; `0-0` if there is none."""
        with translated_errors():
            return self._store.indexes.first_event_id()

    def last_event_id(self) -> str:
        """Return the id of the newest event, to pass as `after`; `0-0` if there is none."""
        with translated_errors():
            return self._store.last_event_id()


def event_id(text: str) -> str:
    """Return `text` if it is an event id. Raises ValueError."""
    if not _EVENT_ID.fullmatch(text):
        raise ValueError(f"after: {text!r} must be an event id, for example 1760000000000-0")
    return text
