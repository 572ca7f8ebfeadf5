"""The targets of a wait: a job, or a batch. Both clients share them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

from voicequeue.domain.job import Event, Job
from voicequeue.domain.namespaces import Scope
from voicequeue.domain.states import ACTIVE, IN_FLIGHT, INACTIVE
from voicequeue.domain.status import Batch
from voicequeue.errors import WaitTimeoutError
from voicequeue.texts import pluralize

if TYPE_CHECKING:
    from voicequeue.client.reading import ReadMethods

T_co = TypeVar("T_co", covariant=True)


class Awaited(Protocol[T_co]):
    """The target of a wait."""

    #: The events that concern it have this key.
    key: str

    def read(self, queue: ReadMethods) -> tuple[T_co, bool]:
        """Return it as it is now, and whether the wait is over."""

    def timed_out(self) -> WaitTimeoutError:
        """Return the error of a wait that ends too early."""


def keys_of(event: Event) -> Iterator[str]:
    """Yield the keys of what an event may end a wait for."""
    yield f"job {event.job_id}"
    if event.state in INACTIVE:
        yield f"batch {event.qualified_batch}"


class AwaitedJob:
    """A job to be settled or `unsure`."""

    def __init__(self, job_id: str) -> None:
        self._id, self._latest = job_id, ""
        self.key = f"job {job_id}"

    def read(self, queue: ReadMethods) -> tuple[Job, bool]:
        """Return the job, and whether it is settled or `unsure`."""
        job = queue.get(self._id)
        self._latest = f": it is {job.state}"
        return job, job.state in INACTIVE

    def timed_out(self) -> WaitTimeoutError:
        """Return the error that names the job and its state."""
        return WaitTimeoutError(f"job {self._id} has not settled yet{self._latest}")


class AwaitedBatch:
    """A batch whose jobs are to be settled or `unsure`, or that has stopped itself."""

    def __init__(self, name: str, scope: Scope) -> None:
        self._name, self._latest = name, ""
        self.key = f"batch {scope.qualify(name)}"

    def read(self, queue: ReadMethods) -> tuple[Batch, bool]:
        """Return the batch, and whether nothing of it will settle without a person."""
        batch = queue.batch(self._name)
        unsettled = sum(batch.states[state] for state in ACTIVE)
        self._latest = f": {unsettled:,} of {pluralize(batch.total, 'job')} still to settle"
        has_stopped = batch.stop is not None and not any(batch.states[state] for state in IN_FLIGHT)
        return batch, batch.is_settled or has_stopped

    def timed_out(self) -> WaitTimeoutError:
        """Return the error that names the batch and counts its jobs."""
        return WaitTimeoutError(f"batch {self._name!r} has not settled yet{self._latest}")
