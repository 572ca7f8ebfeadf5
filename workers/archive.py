"""The outbox of the archive in workers that archive songs: hands out due jobs and sends heartbeats.

Only such workers run it, so messages do not pile up where there is none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from celery import Celery

from config.settings import settings
from tasks.archive.task import ArchiveServices, sweep
from tasks.celery_tasks import ARCHIVE
from workers.background import BackgroundStep, LeaseDispatcher, Publish, publish
from workers.dependencies import build_archive
from workers.process_info import facts

log = logging.getLogger("voicequeue.pulse")


def archive_dispatcher(
    services: ArchiveServices, publish: Publish, *, worker: str, facts: Mapping[str, Any] | None = None
) -> LeaseDispatcher:
    """Return the dispatcher of jobs to be archived: one job per message, so that slow songs delay no other job."""
    return LeaseDispatcher(
        services.archive,
        publish,
        task=ARCHIVE,
        chunk=1,
        lease_s=services.patience.handed_out_s,
        heartbeats=services.pulses,
        clock=services.clock,
        worker=worker,
        facts=facts,
    )


class ArchiveStep(BackgroundStep):
    """Runs the dispatcher in each worker that consumes the queue `archive`."""

    queues = frozenset({"archive"})

    def prepare(self, app: Celery, worker: str, processes: int) -> Callable[[], None] | None:  # noqa: ARG002  one is enough
        """Build the dispatcher; return None if no archive is configured. Raises Unusable."""
        config = settings()
        if not config.archive.get_secret_value():
            log.warning("nothing is archived: VOICEQUEUE_ARCHIVE is not set")
            return None
        services = build_archive(config)
        sweep(time.time())
        dispatcher = archive_dispatcher(services, partial(publish, app), worker=worker, facts=facts(config, "archive"))
        return partial(dispatcher.run_until, self.stopping, config.pulse_s)
