"""The pulse: what every live worker does beside its tasks, so that no single process can be lost.

Each beat admits jobs from the backlog and hands them out; every few beats it looks for jobs whose
time has passed without anybody caring. Two pulses at once do no harm: the store's scripts give
each job to one of them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import Any

from celery import Celery, bootsteps

from config.settings import settings
from tasks import decide
from tasks.celery_tasks import poll_name, submit_name
from tasks.musicapi import UpstreamError
from tasks.services import Services
from voicequeue import changes
from voicequeue.job import IN_FLIGHT, MAY_BE_LATE, State
from voicequeue.stage import Stage
from voicequeue.store import Overdue
from workers.services import build

log = logging.getLogger("voicequeue.pulse")

#: Gives task `name` to some worker, for these job ids.
HandOut = Callable[[str, list[str]], None]


class Pulse:
    """Admits and reconciles.

    `worker` is the name it is heard under, `limit` how many jobs may be in flight, `chunk` how many a
    message carries, `credits_every` how often (seconds) the account's credits are asked for.
    `resubmit_after` is the policy for unsure jobs: seconds after which they are
    ordered again; None leaves them to a person.
    """

    def __init__(
        self,
        services: Services,
        hand_out: HandOut,
        *,
        worker: str,
        limit: int,
        chunk: int,
        credits_every: float = 60.0,
        resubmit_after: float | None = None,
    ) -> None:
        self._services = services
        self._hand_out = hand_out
        self._worker = worker
        self._limit = limit
        self._chunk = chunk
        self._credits_every = credits_every
        self._resubmit_after = resubmit_after

    def admit(self) -> None:
        """Fill the free slots from the backlog and hand out what was admitted."""
        now = self._services.clock()
        self._services.store.heard(self._worker, now)
        for stage, job_ids in self._services.store.admit(now, limit=self._limit).items():
            self._in_chunks(submit_name(stage), job_ids)

    def look_at_the_account(self) -> None:
        """Ask upstream what is left, where it is this worker's turn; the beat does not wait for the answer."""
        if self._services.store.turn("balance", every=self._credits_every):
            self._services.threads.submit(_survive, self._note_balance)

    def _note_balance(self) -> None:
        store, clock = self._services.store, self._services.clock
        asked, spent_before = clock(), store.credits()
        try:
            left = self._services.upstream.credits()
        except UpstreamError as error:
            log.info("the account's credits cannot be asked for: %s", error)
            return
        store.note_balance(left, spent_before=spent_before, asked=asked, now=clock())

    def reconcile(self) -> None:
        """Look after jobs in flight that nobody has looked after in time, and after unsure ones."""
        now = self._services.clock()
        overdue = self._services.store.overdue(now, patience=self._services.patience.stale_s)
        if forgotten := [job for job in overdue if job.state in IN_FLIGHT]:
            log.info("%d jobs were overdue", len(forgotten))
        if overdue:
            self._give_up_charges([job for job in overdue if job.state is State.CHARGING], now)
            for stage in Stage:
                self._in_chunks(submit_name(stage), _ids(overdue, {State.ADMITTED}, stage))
                self._in_chunks(poll_name(stage), _ids(overdue, {State.PENDING, *MAY_BE_LATE}, stage))
        if self._resubmit_after is not None:
            self._order_again(now, unsure_before=now - self._resubmit_after)

    def _order_again(self, now: float, *, unsure_before: float) -> None:
        store = self._services.store
        jobs = [job for job in store.get(store.unsure_since(unsure_before)) if job and job.state is State.UNSURE]
        moves = [changes.order_again(job, now, reason="the policy ordered it again") for job in jobs]
        ordered = [job for job, written in zip(jobs, store.apply(moves, now), strict=True) if written]
        for stage in Stage:
            self._in_chunks(submit_name(stage), [job.id for job in ordered if job.stage is stage])

    def _give_up_charges(self, silent: Sequence[Overdue], now: float) -> None:
        moves = [decide.lost(job.job_id, job.version, job.stage) for job in silent]
        for job, written in zip(silent, self._services.store.apply(moves, now), strict=True):
            if written:
                log.warning("job %s: its worker died while charging the %s: unsure", job.job_id, job.stage)

    def _in_chunks(self, task: str, job_ids: list[str]) -> None:
        for chunk in _chunks(job_ids, self._chunk):
            self._hand_out(task, chunk)


def _ids(overdue: Iterable[Overdue], states: Set[State], stage: Stage) -> list[str]:
    return [job.job_id for job in overdue if job.state in states and job.stage is stage]


def _chunks(job_ids: list[str], size: int) -> Iterator[list[str]]:
    return (job_ids[start : start + size] for start in range(0, len(job_ids), size))


class PulseStep(bootsteps.StartStopStep):
    """Beats in a thread of the worker's main process, from start to stop, whatever the broker does."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, worker: Any) -> None:
        """Begin to beat."""
        self._thread = threading.Thread(target=self._run, args=(worker.app, worker.hostname), name="pulse", daemon=True)
        self._thread.start()

    def stop(self, worker: Any) -> None:
        """Beat no more: nothing new is begun while the worker's tasks end."""
        self.terminate(worker)

    def terminate(self, worker: Any) -> None:  # noqa: ARG002  Celery's signature
        """The same, before a cold shutdown."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self, app: Celery, worker: str) -> None:
        chosen = settings()
        pulse = Pulse(
            build(chosen),
            lambda task, job_ids: _publish(app, task, job_ids),
            worker=worker,
            limit=chosen.max_in_flight,
            chunk=chosen.chunk,
            credits_every=chosen.credits_every_s,
            resubmit_after=chosen.unsure_grace_s if chosen.unsure == "resubmit" else None,
        )
        beats_to_reconcile = max(1, round(chosen.reconcile_s / chosen.pulse_s))
        beat = 0
        while not self._stop.wait(chosen.pulse_s):
            beat += 1
            _survive(pulse.look_at_the_account)
            _survive(pulse.admit)
            if beat % beats_to_reconcile == 0:
                _survive(pulse.reconcile)


def _publish(app: Celery, task: str, job_ids: list[str]) -> None:
    app.send_task(task, args=(job_ids,))


def _survive(step: Callable[[], None]) -> None:
    try:
        step()
    except Exception as error:  # the next beat tries again; what was claimed comes back as overdue
        log.warning("pulse: %s failed: %s: %s", step.__name__, type(error).__name__, error)
