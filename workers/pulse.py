"""The pulse: what every live worker does beside its tasks, so that no single process can be lost.

Each beat admits jobs from the backlog and hands them out, at once where something wakes it; every few
seconds it looks for jobs whose time has passed without anybody caring. Two pulses at once do no
harm: the store's scripts give each job to one of them.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from math import ceil, inf
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from celery import Celery, bootsteps
from celery.platforms import EX_FAILURE
from celery.worker import state

from config.celeryconfig import QUEUES
from config.settings import Settings, settings
from tasks import decisions
from tasks.celery_tasks import poll_name, submit_name
from tasks.context import Services
from tasks.musicapi import UpstreamError, load
from tasks.poll_scheduler import COUNTDOWN_MAX_S
from voicequeue.domain import transitions
from voicequeue.domain.balance import drift
from voicequeue.domain.claims import Overdue
from voicequeue.domain.job import IN_FLIGHT, MAY_BE_LATE, Event, Job, Move, State
from voicequeue.domain.stage import Stage
from voicequeue.storage.heartbeats import DAY_S, Pulses
from workers.dependencies import build
from workers.lifeline import lifeline
from workers.process_info import facts

log = logging.getLogger("voicequeue.pulse")

#: Gives task `name` to some worker, for these job ids.
HandOut = Callable[[str, list[str]], None]


#: After a beat that something woke, as a part of the time between two that nothing does: jobs that come one by one are
#: admitted together, and share their messages from there on.
REST = 1 / 2


#: The fact that says how many processes run the tasks of a worker.
PROCESSES = "processes"


#: What Celery leaves of each message lies in cycles: so often (seconds) they are cleared, for Python itself waits until
#: they are a quarter of all there is.
TIDY_S = 2.0

#: Jobs that one script admits: Redis does nothing else meanwhile.
AT_ONCE = 500

#: Seconds in which jobs are let go of at most, each time that the pulse looks: it has more to do.
PURGING_S = 0.2

#: Polls are planned anew after so many times the longest time between two.
REPLANNED = 4


class Pulse:
    """Admits and reconciles.

    `worker` is the name it is heard under, with these `facts`; `chunk` the most jobs that a message carries, and
    `at_once` how many of them a process works on at once; `credits_every` how often (seconds) the account's credits
    are asked for. `resubmit_after` is the policy for unsure jobs: seconds after which they are ordered again; None
    leaves them to a person. `keep` is how long (seconds) jobs are kept that are over.
    """

    def __init__(
        self,
        services: Services,
        hand_out: HandOut,
        *,
        worker: str,
        chunk: int,
        at_once: int = 1,
        credits_every: float = 60.0,
        resubmit_after: float | None = None,
        keep: float = inf,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self._services = services
        self._hand_out = hand_out
        self._worker = worker
        self._chunk = chunk
        self._at_once = at_once
        self._processes = 1
        self._credits_every = credits_every
        self._resubmit_after = resubmit_after
        self._keep = keep
        self._purging: Iterator[int] = iter(())
        self._facts = facts
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="account")

    def beat(self, within: float, rest: Callable[[float], object] = time.sleep) -> None:
        """Wait until there may be something to admit, at most so many seconds, and admit it; then rest, if something
        came."""
        woken = self._services.store.coordination.wait_for_wakeup(within)
        self.admit()
        if woken:
            rest(within * REST)

    def heard(self) -> None:
        """Say that this worker lives, and what it works with."""
        store = self._services.store
        store.controls.note_settings()
        workers, now = store.pulses["worker"], self._services.clock()
        workers.heard(self._worker, now, self._facts)
        self._processes = sum(each.facts.get(PROCESSES, 1) for each in workers.alive(now))

    def gone(self) -> None:
        """Say that this worker ends."""
        self._services.store.pulses["worker"].gone(self._worker)

    def admit(self) -> None:
        """Fill the free slots from the backlog and hand out what was admitted; not what a worker gives back that
        stops."""
        while not self._services.stopping() and self._admit_some() == AT_ONCE:
            pass

    def _admit_some(self) -> int:
        admitted = self._services.store.admit(self._services.clock(), at_most=AT_ONCE)
        for stage, job_ids in admitted.by_stage.items():
            self._in_chunks(submit_name(stage), job_ids)
        if admitted.news == "short":
            log.warning("the credits do not suffice for the next job: nothing more is begun until there are more")
        elif admitted.news == "enough":
            log.info("there are credits again: it goes on")
        return sum(map(len, admitted.by_stage.values()))

    def tell(self) -> None:
        """Log every move that nobody has logged yet, whoever made it."""
        self._services.store.story.tell(told)

    def look_at_the_account(self) -> None:
        """Ask upstream what is left, where it is this worker's turn; the beat does not wait for the answer."""
        if self._services.store.coordination.try_acquire("balance", ttl_s=self._credits_every):
            self._aside.submit(survive, self._note_balance)

    def _note_balance(self) -> None:
        store, clock = self._services.store, self._services.clock
        asked, spent_before = clock(), store.credits()
        try:
            left = self._services.upstream.credits()
        except UpstreamError as error:
            self._services.health.of_balance(error)
            log.info("the account's credits cannot be asked for: %s", error)
            return
        self._services.health.of_balance(left)
        store.controls.note_balance(left, spent_before=spent_before, asked=asked, now=clock())
        found = drift(store.controls.balances())
        if store.controls.note_drift(found):
            log.warning("%s", found)

    def plan_polls(self) -> None:
        """Place the polls by how long upstream took of late, where it is this worker's turn: of the last 200 orders few
        are new when another poll is due, and a plan costs as much as fifty polls."""
        store, plan = self._services.store, self._services.plan
        if store.coordination.try_acquire("schedules", ttl_s=REPLANNED * plan.max_s):
            for kind in store.poll_history.kinds():
                if ages := plan.schedule(store.poll_history.durations(kind)):
                    store.poll_history.set_schedule(kind, ages)

    def reconcile(self) -> None:
        """Look after jobs in flight that nobody has looked after in time, and after unsure ones."""
        now = self._services.clock()
        patience = self._services.patience
        longest = max(COUNTDOWN_MAX_S, patience.charge_s, patience.poll_s)
        overdue = self._services.store.overdue(now, patience=patience.stale_s, longest=longest)
        if forgotten := [job for job in overdue if job.state in IN_FLIGHT]:
            log.info("jobs were overdue", extra={"count": len(forgotten)})
        if overdue:
            self._give_up_charges([job for job in overdue if job.state is State.CHARGING], now)
            for stage in Stage:
                self._in_chunks(submit_name(stage), _ids(overdue, {State.ADMITTED}, stage))
                self._in_chunks(poll_name(stage), _ids(overdue, {State.PENDING, *MAY_BE_LATE}, stage))
        if expired := self._services.store.expired(now):
            self._services.store.apply([decisions.expired(job, now) for job in expired], now)
        while self._services.store.release(now):
            pass
        self._services.store.hasten(now)
        if self._resubmit_after is not None:
            self._order_again(now, unsure_before=now - self._resubmit_after)

    def purge(self) -> None:
        """Let go of jobs that have been over for longer than they are kept: as many as there is time for. The next time
        it goes on from there."""
        enough = time.monotonic() + PURGING_S
        for _ in self._purging:
            if time.monotonic() > enough:
                return
        if self._keep < inf:
            self._purging = self._services.store.purge(self._services.clock(), keep=self._keep)

    def _order_again(self, now: float, *, unsure_before: float) -> None:
        store = self._services.store
        jobs = [job for job in store.get(store.unsure_since(unsure_before)) if job and job.state is State.UNSURE]
        moves = [_settled(job, now) for job in jobs]
        made = zip(jobs, moves, store.apply(moves, now), strict=True)
        ordered = [job for job, move, written in made if written and move.to is State.ADMITTED]
        for stage in Stage:
            self._in_chunks(submit_name(stage), [job.id for job in ordered if job.stage is stage])

    def _give_up_charges(self, silent: Sequence[Overdue], now: float) -> None:
        moves = [decisions.lost(job.job_id, job.version, job.stage) for job in silent]
        for job, written in zip(silent, self._services.store.apply(moves, now), strict=True):
            if written:
                log.warning(
                    "its worker died while charging: unsure", extra={"job": job.job_id, "stage": str(job.stage)}
                )

    def _in_chunks(self, task: str, job_ids: list[str]) -> None:
        for chunk in chunks(job_ids, self._share_of(len(job_ids))):
            self._hand_out(task, chunk)

    def _share_of(self, count: int) -> int:
        """How many of so many jobs share a message: none waits for others as long as some process has nothing to do."""
        return min(self._chunk, max(self._at_once, ceil(count / self._processes)))


def _settled(job: Job, now: float) -> Move:
    """What the policy makes of an unsure job: it orders again, unless its cancelling was asked for."""
    if job.cancelling:
        return transitions.abandon(job, now)
    return transitions.order_again(job, now, reason="the policy ordered it again")


#: Where each move is told; the others say what they do for it.
moves = logging.getLogger("voicequeue.move")

#: Moves that somebody may want to look at.
_NOTABLE = {State.UNSURE: logging.WARNING, State.FAILED: logging.WARNING}


def told(event: Event) -> None:
    """Log one move."""
    about = {"job": event.job_id, "batch": event.batch, "stage": event.stage, "reason": event.reason}
    known = {name: str(value) for name, value in about.items() if value}
    took = {} if event.took is None else {"duration": event.took}
    moves.log(_NOTABLE.get(event.state, logging.INFO), event.state, extra={**known, **took, "at": event.moment})


def _ids(overdue: Iterable[Overdue], states: Set[State], stage: Stage) -> list[str]:
    return [job.job_id for job in overdue if job.state in states and job.stage is stage]


def chunks(job_ids: list[str], size: int) -> Iterator[list[str]]:
    """The ids, so many at a time."""
    return (job_ids[start : start + size] for start in range(0, len(job_ids), size))


class Beating(bootsteps.StartStopStep):
    """Beats in a thread of the worker's main process, from start to stop, whatever the broker does. A worker whose
    pulse cannot start, or ends before it, ends as well: it would take messages, and be alive to no other process."""

    requires = ("celery.worker.components:Pool",)

    #: Only workers that consume one of these carry it.
    queues: ClassVar[Set[str]] = frozenset()

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self.stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def include_if(self, worker: Any) -> bool:
        """Whether this worker consumes such a queue."""
        return bool(self.queues & set(worker.app.amqp.queues.consume_from))

    def prepare(self, app: Celery, worker: str, processes: int) -> Callable[[], None] | None:
        """Return what beats until `stopping` is set, or None where there is nothing to do; `worker` is this worker's
        name, and `processes` do its tasks."""
        raise NotImplementedError

    def start(self, worker: Any) -> None:
        """Begin to beat, before the worker takes a message."""
        try:
            beat = self.prepare(worker.app, worker.hostname, worker.concurrency)
        except (Exception, SystemExit) as error:
            log.critical("the pulse cannot start, so the worker ends: %s: %s", type(error).__name__, error)
            raise SystemExit(EX_FAILURE) from None
        if beat is not None:
            self._thread = threading.Thread(target=self._run, args=(beat,), name="pulse", daemon=True)
            self._thread.start()

    def _run(self, beat: Callable[[], None]) -> None:
        try:
            beat()
        except BaseException as error:
            log.critical("the pulse has died, so the worker ends: %s", type(error).__name__, exc_info=True)
            state.should_stop = EX_FAILURE  # type: ignore[assignment]  # a flag or an exit code

    def close(self, worker: Any) -> None:  # noqa: ARG002  Celery's signature
        """Begin nothing new from the moment that the worker stops."""
        self.stopping.set()

    def stop(self, worker: Any) -> None:
        """Beat no more: nothing new is begun while the worker's tasks end."""
        self.terminate(worker)

    def terminate(self, worker: Any) -> None:  # noqa: ARG002  Celery's signature
        """The same, before a cold shutdown."""
        self.stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=5)


class Living(Protocol):
    """What a process beside the workers works with."""

    @property
    def pulses(self) -> Pulses:
        """Where it is heard."""

    @property
    def clock(self) -> Callable[[], float]:
        """What time it is (Unix seconds)."""


S = TypeVar("S", bound=Living)


class SidePulse(Generic[S]):
    """The pulse of a process beside the workers; `worker` is the name it is heard under, with these `facts`."""

    def __init__(self, services: S, give: HandOut, *, worker: str, facts: Mapping[str, Any] | None = None) -> None:
        self._services = services
        self._give = give
        self._worker = worker
        self._facts = facts

    def hand_out(self, now: float) -> None:
        """Give what is due to some process."""
        raise NotImplementedError

    def beat(self) -> None:
        """Say that this process lives, and hand out what is due."""
        now = self._services.clock()
        self._services.pulses.heard(self._worker, now, self._facts)
        self.hand_out(now)

    def beat_until(self, stopping: threading.Event, every: float) -> None:
        """Once in so many seconds; at the end it says that it is over."""
        while not stopping.is_set():
            survive(self.beat)
            stopping.wait(every)
        survive(partial(self._services.pulses.gone, self._worker))


class PulseStep(Beating):
    """The pulse of a worker that works on jobs."""

    queues = frozenset(QUEUES)

    def create(self, worker: Any) -> None:  # noqa: ARG002  Celery's signature
        """Before any process is forked."""
        load()

    def prepare(self, app: Celery, worker: str, processes: int) -> Callable[[], None]:
        """Build the pulse."""
        chosen = settings()
        pulse = Pulse(
            replace(build(chosen), stopping=lifeline.is_cut),
            partial(publish, app),
            worker=worker,
            chunk=chosen.chunk,
            at_once=chosen.http_threads,
            credits_every=chosen.credits_every_s,
            resubmit_after=chosen.unsure_grace_s if chosen.unsure == "resubmit" else None,
            keep=chosen.keep_days * DAY_S,
            facts={**facts(chosen, "worker"), PROCESSES: processes},
        )
        return partial(self._beat, pulse, chosen)

    def _beat(self, pulse: Pulse, chosen: Settings) -> None:
        """Beat until the worker stops."""
        heard, reconciled, tidied = Every(chosen.pulse_s), Every(chosen.reconcile_s), Every(TIDY_S)
        while not (self.stopping.is_set() or lifeline.is_cut()):
            if heard.due():
                survive(pulse.heard)
                survive(pulse.look_at_the_account)
                survive(pulse.plan_polls)
                survive(pulse.tell)
            if reconciled.due():
                survive(pulse.reconcile)
                survive(pulse.purge)
            if tidied.due():
                gc.collect()
            if not survive(partial(pulse.beat, chosen.pulse_s, self.stopping.wait)):
                self.stopping.wait(chosen.pulse_s)
        survive(pulse.gone)


class Every:
    """Says once in so many seconds that it is time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def due(self) -> bool:
        """Whether it is time."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


def publish(app: Celery, task: str, job_ids: list[str]) -> None:
    """Send a message that carries ids and nothing else."""
    app.send_task(task, args=(job_ids,))


def survive(step: Callable[[], None]) -> bool:
    """Whether the step was made."""
    try:
        step()
    except Exception as error:  # the next beat tries again; what was claimed comes back as overdue
        log.warning("pulse: a beat failed: %s: %s", type(error).__name__, error)
        return False
    return True
