"""The dispatcher of jobs: admits them from the backlog and hands them to Celery.

Every worker runs one. Two dispatchers at once are safe: the store's scripts give each job to one of them.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Any

from celery import Celery
from celery.concurrency import prefork

from config.celeryconfig import WORKER_QUEUES
from config.settings import Settings, settings
from tasks.celery_tasks import submit_name
from tasks.context import TaskContext
from tasks.musicapi import preload
from tasks.repeated_polls import ABANDONED_EVERY_S
from voicequeue.storage import scripts
from voicequeue.storage.heartbeats import DAY_S
from voicequeue.storage.monitoring.audit_log import AuditLogRetention
from workers.background import (
    BackgroundStep,
    FactsAt,
    Interval,
    Publish,
    chunks,
    facts_of,
    no_facts,
    publish,
    run_safely,
)
from workers.dependencies import build_services, repeating
from workers.lifeline import lifeline
from workers.maintenance import Maintenance
from workers.messaging.submit_slots import submit_processes
from workers.process_info import CONCURRENCY, process_facts
from workers.store_check import require_usable_store

log = logging.getLogger("voicequeue.dispatcher")

#: Pause after an early wake-up, as a fraction of the interval, so that jobs that arrive one by one are admitted
#: together and share messages from there on.
PAUSE_AFTER_WAKE_UP = 1 / 2

#: The fact of a heartbeat that gives the number of processes that may run a worker's submit tasks.
PROCESSES = "processes"

#: Jobs that one script admits; Redis does nothing else meanwhile.
ADMIT_MAX = 500

#: Seconds between two collections of the reference cycles that Celery leaves behind with each message. Python itself
#: waits until they are a quarter of all objects.
COLLECT_INTERVAL_S = 2.0


#: The scripts that tasks run.
TASK_SCRIPTS = ("claim_submit", "apply_transitions", "claim_poll", "reschedule_polls")


class Dispatcher:
    """Admits jobs and hands them out.

    A message carries at most `chunk` jobs; one process works on `at_once` of them concurrently. `worker` and `facts`
    (of the queue's time) describe the process in its heartbeats.
    """

    def __init__(
        self,
        services: TaskContext,
        publish: Publish,
        *,
        worker: str,
        chunk: int,
        at_once: int = 1,
        facts: FactsAt = no_facts,
    ) -> None:
        self._services = services
        self._publish = publish
        self._worker = worker
        self._chunk = chunk
        self._at_once = at_once
        self._processes = 1
        self._facts = facts

    def wait_and_admit(self, within_s: float, pause: Callable[[float], object] = time.sleep) -> None:
        """Wait at most `within_s` seconds for jobs that may be admitted, admit them, and pause after a wake-up."""
        is_woken = self._services.store.coordination.wait_for_wakeup(within_s)
        self.admit()
        if is_woken:
            pause(within_s * PAUSE_AFTER_WAKE_UP)

    def send_heartbeat(self) -> None:
        """Record that this worker is alive."""
        now = self._services.clock()
        self._services.store.heartbeats["worker"].record(self._worker, now, self._facts(now))

    def count_processes(self) -> None:
        """Publish the limits in this worker's settings, and count the processes of all workers."""
        self._services.store.flow_control.publish_settings()
        workers = self._services.store.heartbeats["worker"].alive(self._services.clock())
        self._processes = sum(worker.facts.get(PROCESSES, 1) for worker in workers)

    def remove_heartbeat(self) -> None:
        """Record that this worker has stopped."""
        self._services.store.heartbeats["worker"].remove(self._worker)

    def admit(self) -> None:
        """Fill the free slots from the backlog and hand out the jobs; a worker that stops admits none."""
        while not self._services.is_stopping() and self._admit_some() == ADMIT_MAX:
            pass

    def _admit_some(self) -> int:
        admitted = self._services.store.admit(self._services.clock(), at_most=ADMIT_MAX)
        for stage, job_ids in admitted.by_stage.items():
            self.hand_out(submit_name(stage), job_ids)
        if admitted.balance_change == "short":
            log.warning("not enough credits for the next job; submission stops until the balance rises")
        elif admitted.balance_change == "enough":
            log.info("credits available again; submission resumes")
        return sum(map(len, admitted.by_stage.values()))

    def hand_out(self, task: str, job_ids: list[str]) -> None:
        """Send these jobs to the Celery task, in chunks that leave no idle process without work."""
        for chunk in chunks(job_ids, min(self._chunk, max(self._at_once, ceil(len(job_ids) / self._processes)))):
            self._publish(task, chunk)


class DispatcherStep(BackgroundStep):
    """Runs the dispatcher and the maintenance in workers that process jobs."""

    queues = frozenset(WORKER_QUEUES)

    def create(self, worker: Any) -> None:
        """Load what all processes use before any is forked, so that they share its memory, and exempt it from
        collections: Celery collects before each fork."""
        preload(settings().musicapi_base_url)
        for script in TASK_SCRIPTS:
            scripts.load(script)
        if worker.concurrency > 1 and not worker.autoscale and issubclass(worker.pool_cls, prefork.TaskPool):
            repeating.open()
        gc.freeze()

    def prepare(self, app: Celery, worker: str, processes: int) -> Callable[[], None]:
        """Build the dispatcher and the maintenance, and return their loop."""
        config = settings()
        require_usable_store(config)
        services = replace(build_services(config), is_stopping=lifeline.is_cut, repeating=repeating)
        figures = {PROCESSES: submit_processes(processes), CONCURRENCY: processes}
        facts = {**process_facts(config, "worker"), **figures}
        dispatcher = Dispatcher(
            services,
            partial(publish, app),
            worker=worker,
            chunk=config.task_chunk_size,
            at_once=config.upstream_concurrency,
            facts=facts_of(app, self.queues, facts),
        )
        maintenance = Maintenance(
            services,
            dispatcher.hand_out,
            balance_interval_s=config.balance_interval_s,
            resubmit_after_s=config.unsure_resubmit_delay_s if config.unsure_policy == "resubmit" else None,
            retention_s=config.retention_days * DAY_S,
            audit_log=AuditLogRetention(config.audit_log_retention_days * DAY_S, config.audit_log_max_entries),
            requires_consent=config.require_consent,
        )
        return partial(self._loop, dispatcher, maintenance, config)

    def _loop(self, dispatcher: Dispatcher, maintenance: Maintenance, config: Settings) -> None:
        heartbeat, upkeep = Interval(config.dispatch_interval_s), Interval(config.maintenance_interval_s)
        collection, late_polls = Interval(COLLECT_INTERVAL_S), Interval(ABANDONED_EVERY_S)
        while not (self.stopping.is_set() or lifeline.is_cut()):
            if heartbeat.is_due():
                run_safely(dispatcher.send_heartbeat)
                run_safely(maintenance.refresh_balance)
                run_safely(maintenance.take_sample)
                run_safely(maintenance.plan_polls)
                run_safely(maintenance.log_events)
                run_safely(maintenance.summarize)
            if late_polls.is_due():
                run_safely(maintenance.resume_polls)
            if upkeep.is_due():
                run_safely(dispatcher.count_processes)
                run_safely(maintenance.publish_policy)
                run_safely(maintenance.reconcile)
                run_safely(maintenance.report_budgets)
                run_safely(maintenance.purge)
                run_safely(maintenance.erase)
                run_safely(maintenance.trim_audit_log)
            if collection.is_due():
                gc.collect()
            if not run_safely(partial(dispatcher.wait_and_admit, config.dispatch_interval_s, self.stopping.wait)):
                self.stopping.wait(config.dispatch_interval_s)
        run_safely(dispatcher.remove_heartbeat)
        run_safely(maintenance.close)
