"""The dispatcher of archive workers: sends due jobs to the queue `archive`, and reports a heartbeat.

It runs in these workers only, so that no messages accumulate without one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from celery import Celery

from config.settings import settings
from tasks.archive.storage_check import StorageCheck
from tasks.archive.task import ArchiveServices, delete_erased, remove_stale_files
from tasks.celery_tasks import ARCHIVE_TASK
from voicequeue.storage.celery_queues import consumed_by
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore
from workers.background import (
    BackgroundStep,
    FactsAt,
    IdleProcess,
    LeaseDispatcher,
    Publish,
    facts_of,
    no_facts,
    publish,
)
from workers.dependencies import REDIS_RETRY_S, build_archive
from workers.process_info import CONCURRENCY, process_facts
from workers.store_check import require_usable_store

log = logging.getLogger("voicequeue.dispatcher")


def archive_dispatcher(
    services: ArchiveServices, publish: Publish, *, worker: str, facts: FactsAt = no_facts
) -> LeaseDispatcher:
    """Return the dispatcher of jobs to archive: one job per message, so that slow songs do not delay other jobs."""
    return LeaseDispatcher(
        outbox=services.archive,
        publish=publish,
        task=ARCHIVE_TASK,
        chunk=1,
        lease_s=services.timeouts.message_lost_after_s,
        heartbeats=services.heartbeats,
        clock=services.clock,
        worker=worker,
        facts=facts,
        upkeep=partial(delete_erased, services),
    )


def _facts(process: FactsAt, check: StorageCheck, now: float) -> Mapping[str, Any]:
    """Return the facts of this process for a heartbeat, with the state of its storage."""
    check.watch()
    return {**process(now), **check.facts}


class ArchiveStep(BackgroundStep):
    """Runs the dispatcher in a thread of each worker that consumes the queue `archive`."""

    queues = frozenset(consumed_by("archive"))

    def prepare(self, app: Celery, worker: str, processes: int) -> Callable[[], None]:
        """Build the dispatcher; without an archive, only what sends heartbeats. Raises ArchiveStorageError."""
        configured = settings()
        require_usable_store(configured)
        constant = {**process_facts(configured, "archive"), CONCURRENCY: processes}
        facts = facts_of(app, self.queues, constant)
        if configured.archive_url.get_secret_value():
            services = build_archive(configured)
            remove_stale_files(time.time())
            check = StorageCheck(services.storage, services.clock, min_free_bytes=configured.archive_max_file_bytes)
            check.start(self.stopping)
            process: LeaseDispatcher | IdleProcess = archive_dispatcher(
                services, partial(publish, app), worker=worker, facts=partial(_facts, facts, check)
            )
        else:
            log.warning("VOICEQUEUE_ARCHIVE_URL is not set: nothing is archived")
            store = JobStore(
                connect(configured.redis_url, wait_s=REDIS_RETRY_S, prefix=configured.prefix), configured.prefix
            )
            process = IdleProcess(store.heartbeats["idle"], store.clock, worker, facts)
        return partial(process.run_until, self.stopping, configured.dispatch_interval_s)
