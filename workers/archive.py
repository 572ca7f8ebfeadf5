"""The pulse of a worker that archives songs: hands out the jobs that are due, and says that it lives.

Only such workers carry it: where there is none, no messages pile up.
"""

from __future__ import annotations

import logging
import time
from functools import partial

from celery import Celery

from config.settings import Settings, settings
from tasks.archive.keep import ArchiveServices, sweep
from tasks.archive.shelf import Unusable
from tasks.celery_tasks import ARCHIVE
from workers.facts import facts
from workers.pulse import Beating, SidePulse, publish
from workers.services import build_archive

log = logging.getLogger("voicequeue.pulse")


class ArchivePulse(SidePulse[ArchiveServices]):
    """Hands out jobs whose songs are to be archived."""

    def hand_out(self, now: float) -> None:
        """A message each: the slow songs of one job hold up no other."""
        for job_id in self._services.archive.hand_out(now, patience=self._services.patience.handed_out_s):
            self._give(ARCHIVE, [job_id])


class ArchiveStep(Beating):
    """Beats in a thread of each worker that consumes the queue `archive`."""

    queues = frozenset({"archive"})

    def run(self, app: Celery, worker: str, processes: int) -> None:  # noqa: ARG002  it does not matter here
        """Beat until the worker stops."""
        chosen = settings()
        if (services := _services(chosen)) is None:
            return
        sweep(time.time())
        pulse = ArchivePulse(services, partial(publish, app), worker=worker, facts=facts(chosen))
        pulse.beat_until(self.stopping, chosen.pulse_s)


def _services(chosen: Settings) -> ArchiveServices | None:
    if not chosen.archive.get_secret_value():
        log.warning("nothing is archived: VOICEQUEUE_ARCHIVE is not set")
        return None
    try:
        return build_archive(chosen)
    except Unusable as error:
        log.error("nothing is archived: %s", error)
        return None
