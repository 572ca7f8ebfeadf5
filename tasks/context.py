"""What the steps work with, handed down by the process that runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

from tasks.musicapi import MusicApi
from tasks.poll_scheduler import Polls
from tasks.upstream_health import Health
from tasks.webhooks import Webhooks
from voicequeue.domain.poll_schedule import PollPlan
from voicequeue.domain.stage import Stage
from voicequeue.domain.timeouts import Patience
from voicequeue.storage.connection.clock import Clock
from voicequeue.storage.job_store import Store


@dataclass(frozen=True)
class Services:
    """One process's store, upstream and times."""

    store: Store
    upstream: MusicApi
    plan: PollPlan
    patience: Patience
    #: The most jobs that one message carries.
    chunk: int
    #: How long upstream may take for a stage, in seconds.
    deadlines: Mapping[Stage, float]
    #: The queue's time (voicequeue/storage/connection/clock.py).
    clock: Clock
    #: None where upstream cannot reach us.
    webhooks: Webhooks | None = None
    #: Whether this process is stopping: what is on its way is finished, nothing new is sent.
    stopping: Callable[[], bool] = lambda: False
    #: What one call about a job is done within: a span, where traces are on.
    span: Callable[..., AbstractContextManager[None]] = lambda *_, **__: nullcontext()

    @cached_property
    def health(self) -> Health:
        """What this process tells the others of upstream."""
        return Health(self.store.controls, self.patience, self.clock)

    @cached_property
    def polls(self) -> Polls:
        """When this process asks upstream."""
        return Polls(self.store.poll_history, self.plan, self.store.tally)
