"""The dispatcher of archive workers: sends due jobs to the queue `archive`, and reports a heartbeat.

It runs in these workers only, so that no messages accumulate without one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from celery import Celery

from config.settings import settings
from tasks.archive.task import ArchiveServices, sweep
from tasks.celery_tasks import ARCHIVE
from voicequeue.storage.celery_queues import consumed_by
from workers.dependencies import build_archive
from workers.process_info import facts
from workers.pulse import Beating, SidePulse, publish

log = logging.getLogger("voicequeue.pulse")


class ArchivePulse(SidePulse[ArchiveServices]):
    """Sends messages for jobs whose songs have to be archived."""

    def hand_out(self, now: float) -> None:
        """Send one message per due job, so that slow songs of one job do not delay others."""
        for job_id in self._services.archive.hand_out(now, patience=self._services.patience.handed_out_s):
            self._give(ARCHIVE, [job_id])


class ArchiveStep(Beating):
    """Runs the dispatcher in a thread of each worker that consumes the queue `archive`."""

    queues = frozenset(consumed_by("archive"))

    def prepare(self, app: Celery, worker: str, processes: int) -> Callable[[], None] | None:  # noqa: ARG002  one dispatcher is enough
        """Build the dispatcher; None without an archive. Raises Unusable."""
        configured = settings()
        if not configured.archive.get_secret_value():
            log.warning("VOICEQUEUE_ARCHIVE is not set: nothing is archived")
            return None
        services = build_archive(configured)
        sweep(time.time())
        dispatcher = ArchivePulse(services, partial(publish, app), worker=worker, facts=facts(configured, "archive"))
        return partial(dispatcher.beat_until, self.stopping, configured.pulse_s)
