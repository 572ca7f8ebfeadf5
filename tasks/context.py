"""Dependencies of the submit and poll tasks, provided by the process that runs them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from redis.exceptions import RedisError

from tasks.musicapi import MusicApi
from tasks.poll_scheduler import PollScheduler
from tasks.process_lock import ProcessLock
from tasks.recordings import RecordingChecks
from tasks.sources import RecordingSources
from tasks.upstream_health import UpstreamHealth
from tasks.webhooks import Webhooks
from voicequeue.domain.poll_schedule import PollSchedulePolicy
from voicequeue.domain.stage import Stage
from voicequeue.domain.timeouts import Timeouts
from voicequeue.storage.connection.clock import Clock
from voicequeue.storage.job_store import JobStore

log = logging.getLogger("voicequeue")


@dataclass(frozen=True)
class TaskContext:
    """Store, upstream client and timeouts of one process."""

    store: JobStore
    upstream: MusicApi
    poll_plan: PollSchedulePolicy
    timeouts: Timeouts
    #: Maximum number of jobs in one message.
    chunk_size: int
    #: How long upstream may take for a stage, in seconds.
    deadlines: Mapping[Stage, float]
    #: The queue's time (voicequeue/storage/connection/clock.py).
    clock: Clock
    #: None where upstream cannot reach the gateway.
    webhooks: Webhooks | None = None
    sources: RecordingSources = field(default_factory=RecordingSources)
    #: None where recordings are not checked before their order is sent.
    recordings: RecordingChecks | None = None
    #: Whether the process is stopping: it finishes requests in flight and sends no new ones.
    is_stopping: Callable[[], bool] = lambda: False
    #: Held by the process of this worker that repeats polls in its task (tasks/repeated_polls.py).
    repeating: ProcessLock = field(default_factory=ProcessLock)
    sleep: Callable[[float], object] = time.sleep
    #: Context of one request, a trace span where tracing is enabled.
    span: Callable[..., AbstractContextManager[None]] = lambda *_, **__: nullcontext()

    @cached_property
    def health(self) -> UpstreamHealth:
        """Reports of this process about upstream, shared with all workers."""
        return UpstreamHealth(self.store.flow_control, self.timeouts, self.clock)

    @cached_property
    def polls(self) -> PollScheduler:
        """Poll times of this process."""
        return PollScheduler(self.store.poll_history, self.poll_plan, self.store.metrics)


class JobWork(Protocol):
    """A claim or an order."""

    @property
    def job_id(self) -> str:
        """The id of the job."""

    @property
    def stage(self) -> Stage:
        """The stage of the job."""


def job_span(services: TaskContext, name: str, work: JobWork) -> AbstractContextManager[None]:
    """Return the trace span of one request for a job."""
    return services.span(name, job=work.job_id, stage=str(work.stage))


@contextmanager
def defer_to_reconciler(job_ids: Sequence[str]) -> Iterator[None]:
    """Log any error of these jobs and suppress it, so that the other jobs of the chunk proceed.

    The records stay unchanged, and maintenance reconciles them when they are overdue.
    """
    try:
        yield
    except Exception as error:
        # A Redis error quotes the command, so only its type is logged.
        is_defect = not isinstance(error, RedisError)
        for job_id in job_ids:
            log.error("deferred to maintenance: %s", type(error).__name__, exc_info=is_defect, extra={"job": job_id})
