"""The pulse of a worker that archives songs: hands out the jobs that are due, and says that it lives.

Only such workers carry it: where there is none, no messages pile up.
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
    """Hands out jobs whose songs are to be archived."""

    def hand_out(self, now: float) -> None:
        """A message each: the slow songs of one job hold up no other."""
        for job_id in self._services.archive.hand_out(now, patience=self._services.patience.handed_out_s):
            self._give(ARCHIVE, [job_id])


class ArchiveStep(Beating):
    """Beats in a thread of each worker that consumes the queue `archive`."""

    queues = frozenset(consumed_by("archive"))

    def prepare(self, app: Celery, worker: str, processes: int) -> Callable[[], None] | None:  # noqa: ARG002  one is enough
        """Build the pulse, where songs are archived. Raises Unusable."""
        chosen = settings()
        if not chosen.archive.get_secret_value():
            log.warning("nothing is archived: VOICEQUEUE_ARCHIVE is not set")
            return None
        services = build_archive(chosen)
        sweep(time.time())
        pulse = ArchivePulse(services, partial(publish, app), worker=worker, facts=facts(chosen, "archive"))
        return partial(pulse.beat_until, self.stopping, chosen.pulse_s)
