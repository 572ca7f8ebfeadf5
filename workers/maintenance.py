"""Maintenance: reconciles overdue jobs, reads the balance, plans polls, purges old jobs, and logs transitions.

Every worker does it. Two workers at once are safe: the store's scripts give each job to one of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from math import inf

from tasks import decisions
from tasks.celery_tasks import poll_name, submit_name
from tasks.context import TaskContext
from tasks.musicapi import UpstreamError
from tasks.poll_scheduler import COUNTDOWN_MAX_S
from tasks.repeated_polls import abandoned_polls
from voicequeue.domain import transitions
from voicequeue.domain.balance import uncounted_spending
from voicequeue.domain.claims import StalledJob
from voicequeue.domain.job import Event, Job, Transition
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import IN_FLIGHT, MAY_HAVE_LATE_RESULT, State
from voicequeue.storage.monitoring.audit_log import AuditLogRetention
from voicequeue.storage.monitoring.samples import LOCK, SAMPLE_INTERVAL_S, SAMPLED_STATES, Sample
from workers.background import run_safely

log = logging.getLogger("voicequeue.dispatcher")

#: The logger of transitions; other loggers report what processes do.
transition_log = logging.getLogger("voicequeue.transition")

#: Transitions that an operator may have to look at.
_LOG_LEVELS: Mapping[str, int] = {State.UNSURE: logging.WARNING, State.FAILED: logging.WARNING}

#: Time limit (seconds) of one run of the purge, which other maintenance waits for.
PURGE_MAX_S = 0.2

#: Seconds between two searches for ranges of jobs without a summary, and the time limit (seconds) of one run.
SUMMARIES_INTERVAL_S, SUMMARIZE_MAX_S = 15.0, 0.02

#: The time after which a worker asks again whether it is its turn, as a fraction of the interval.
ASK_AGAIN = 1 / 10

#: The interval of planning polls, in multiples of the longest time between two polls.
PLAN_INTERVALS = 4


class Maintenance:
    """Keeps the queue consistent: no job depends on a single message or process.

    `hand_out` sends jobs to a Celery task. `balance_interval_s` is the time between two reads of the account's balance.
    Unsure jobs are resubmitted after `resubmit_after_s`; None leaves them to an operator. Jobs in a final state are
    purged after `retention_s`. With `requires_consent`, new jobs need `metadata.consent_ref`. The audit
    log is trimmed to `audit_log`; None keeps it.
    """

    def __init__(
        self,
        services: TaskContext,
        hand_out: Callable[[str, list[str]], None],
        *,
        balance_interval_s: float = 60.0,
        resubmit_after_s: float | None = None,
        retention_s: float = inf,
        audit_log: AuditLogRetention | None = None,
        requires_consent: bool = False,
    ) -> None:
        self._services = services
        self._hand_out = hand_out
        self._balance_interval_s = balance_interval_s
        self._resubmit_after_s = resubmit_after_s
        self._retention_s = retention_s
        self._audit_log = audit_log
        self._requires_consent = requires_consent
        self._purge: Iterator[int] = iter(())
        self._summaries: Iterator[int] | None = None
        self._turns: dict[str, float] = {}
        self._balance_thread = ThreadPoolExecutor(1, thread_name_prefix="balance")

    def close(self) -> None:
        """Close the connections to upstream; a read of the balance fails."""
        self._services.upstream.close()

    def _is_turn(self, name: str, every_s: float) -> bool:
        """Return whether this worker is the first to do this within the interval. Redis is asked when the interval is
        over, or now and then if another worker was the first."""
        now = time.monotonic()
        if now < self._turns.get(name, now):
            return False
        is_first = self._services.store.coordination.try_acquire(name, ttl_s=every_s)
        self._turns[name] = now + (every_s if is_first else every_s * ASK_AGAIN)
        return is_first

    def log_events(self) -> None:
        """Log every transition, and every batch that stopped itself, that is not logged yet, of any process."""
        if not self._services.store.event_log.log_new(log_transition, is_logged):
            return  # a batch stops with a transition
        for batch in self._services.store.newly_stopped_batches():
            reason = batch.stop.reason if batch.stop else ""
            log.warning("batch stopped", extra={"batch": batch.qualified_name, "reason": reason})

    def report_budgets(self) -> None:
        """Log budgets of which 80 or 100 percent is used, once in their period, and write their callbacks."""
        services = self._services
        for budget in services.store.flow_control.report_budgets(services.clock()):
            figures = {"limit": budget.limit, "remaining": budget.remaining}
            labels = {"owner": budget.owner, "period": budget.period, "percent": budget.level}
            log.warning("budget used", extra={**labels, **figures})

    # ── the balance ────────────────────────────────────────────────────────────────────────────

    def refresh_balance(self) -> None:
        """Read the balance in the background if no worker has read it within the interval."""
        if self._is_turn("balance", self._balance_interval_s):
            self._balance_thread.submit(run_safely, self._read_balance)

    def _read_balance(self) -> None:
        store, clock = self._services.store, self._services.clock
        requested_at, spent_before = clock(), store.credits_spent()
        try:
            balance = self._services.upstream.get_credits()
        except UpstreamError as error:
            if self._services.is_stopping():
                return  # this process has closed the connection
            self._services.health.report_balance(error)
            log.info("balance check failed: %s", error)
            return
        self._services.health.report_balance(balance)
        store.flow_control.record_balance(balance, spent_before=spent_before, requested_at=requested_at, now=clock())
        deviation = uncounted_spending(store.flow_control.balances())
        if store.flow_control.record_uncounted(deviation):
            log.warning("%s", deviation)

    # ── samples ────────────────────────────────────────────────────────────────────────────────

    def take_sample(self) -> None:
        """Sample the queue for the charts of the job page, if no worker has done so within the interval."""
        if not self._is_turn(LOCK, SAMPLE_INTERVAL_S):
            return
        store, now = self._services.store, self._services.clock()
        states = store.counts_by_state()
        sample = Sample(
            at=now,
            states={state: states[state] for state in SAMPLED_STATES},
            in_flight=store.count_in_flight(),
            in_flight_limit=store.flow_control.in_flight_limit().limit,
            spent=store.credits_spent(),
            balance=store.flow_control.account(now).balance,
        )
        store.samples.record(sample)

    # ── polls ──────────────────────────────────────────────────────────────────────────────────

    def plan_polls(self) -> None:
        """Compute poll schedules from recent upstream durations, if no worker has done so within the interval.

        A schedule uses the last 200 orders, so it changes slowly; computing one costs as much as fifty polls.
        """
        store, plan = self._services.store, self._services.poll_plan
        if not plan.is_fixed and self._is_turn("schedules", PLAN_INTERVALS * plan.max_s):
            for kind in store.poll_history.kinds():
                if ages := plan.schedule(store.poll_history.durations(kind)):
                    store.poll_history.set_schedule(kind, ages)

    def resume_polls(self) -> None:
        """Hand out the polls that were left to a process which was killed."""
        polls = abandoned_polls(self._services)
        for stage in Stage:
            self._hand_out(poll_name(stage), [poll.job_id for poll in polls if poll.stage is stage])

    # ── jobs ───────────────────────────────────────────────────────────────────────────────────

    def reconcile(self) -> None:
        """Hand out overdue jobs again, fail expired ones, release due voices, and apply the policy for unsure jobs."""
        store, now = self._services.store, self._services.clock()
        self._reconcile_overdue(now)
        if expired := store.lease_expired(now):
            store.apply_transitions([decisions.expired(job, now) for job in expired], now)
        while store.release_waiting(now):
            pass
        store.reassign_voice_creators(now)
        if self._resubmit_after_s is not None:
            self._resubmit(now, unsure_before=now - self._resubmit_after_s)

    def _reconcile_overdue(self, now: float) -> None:
        timeouts = self._services.timeouts
        longest = max(COUNTDOWN_MAX_S, timeouts.submit_lease_s, timeouts.poll_lease_s)
        overdue = self._services.store.lease_overdue(now, overdue_s=timeouts.redispatch_after_s, longest_s=longest)
        if in_flight := [job for job in overdue if job.state in IN_FLIGHT]:
            log.info("overdue jobs found", extra={"count": len(in_flight)})
        if overdue:
            self._mark_unsure([job for job in overdue if job.state is State.CHARGING], now)
            for stage in Stage:
                self._hand_out(submit_name(stage), _ids(overdue, {State.ADMITTED}, stage))
                self._hand_out(poll_name(stage), _ids(overdue, {State.PENDING, *MAY_HAVE_LATE_RESULT}, stage))

    def _mark_unsure(self, stalled: Sequence[StalledJob], now: float) -> None:
        changes = [decisions.worker_died(job.job_id, job.version, job.stage) for job in stalled]
        for job, is_applied in zip(stalled, self._services.store.apply_transitions(changes, now), strict=True):
            if is_applied:
                log.warning(
                    "worker died while submitting; the job is unsure",
                    extra={"job": job.job_id, "stage": str(job.stage)},
                )

    def _resubmit(self, now: float, *, unsure_before: float) -> None:
        store = self._services.store
        jobs = [job for job in store.get(store.unsure_since(unsure_before)) if job and job.state is State.UNSURE]
        changes = [_resubmission(job, now) for job in jobs]
        outcomes = zip(jobs, changes, store.apply_transitions(changes, now), strict=True)
        admitted = [job for job, change, is_applied in outcomes if is_applied and change.to_state is State.ADMITTED]
        for stage in Stage:
            self._hand_out(submit_name(stage), [job.id for job in admitted if job.stage is stage])

    def purge(self) -> None:
        """Delete jobs whose retention is over. The next call continues where the time limit interrupted this one."""
        deadline = time.monotonic() + PURGE_MAX_S
        for _ in self._purge:
            if time.monotonic() > deadline:
                return
        self._services.store.flow_control.forget_days(self._services.clock())
        if self._retention_s < inf:
            self._purge = self._services.store.purge(self._services.clock(), retention_s=self._retention_s)

    def summarize(self) -> None:
        """Build summaries of ranges of jobs, by which searches pass over them, if no worker has started within the
        interval. The next call continues where the time limit interrupted this one."""
        if self._summaries is None:
            if not self._is_turn("summaries", SUMMARIES_INTERVAL_S):
                return
            self._summaries = self._services.store.indexes.summaries.build(self._services.clock)
        deadline = time.monotonic() + SUMMARIZE_MAX_S
        steps, self._summaries = self._summaries, None
        for _ in steps:
            if time.monotonic() > deadline:
                self._summaries = steps
                return

    def erase(self) -> None:
        """Erase marked jobs that have settled, and complete erasures that were interrupted."""
        store, now = self._services.store, self._services.clock()
        marked_ids = store.erasure.due()
        jobs = zip(marked_ids, store.get(marked_ids), strict=True)
        store.erasure.erase([job_id for job_id, job in jobs if job is None or job.is_final], now)

    def publish_policy(self) -> None:
        """Write to Redis whether new jobs need a consent, so that every interface requires it."""
        self._services.store.erasure.require_consent(is_required=self._requires_consent)

    def trim_audit_log(self) -> None:
        """Delete entries of the audit log whose retention is over."""
        if self._audit_log is not None:
            self._services.store.audit_log.trim(self._services.clock(), self._audit_log)


def _resubmission(job: Job, now: float) -> Transition:
    """Return the policy's transition of an unsure job: resubmit it, or abandon it if its cancellation was requested."""
    if job.is_cancelling:
        return transitions.abandon(job, now)
    return transitions.resubmit(job, now, reason="resubmitted by policy")


def _ids(overdue: Iterable[StalledJob], states: Set[State], stage: Stage) -> list[str]:
    return [job.job_id for job in overdue if job.state in states and job.stage is stage]


def is_logged(state: str) -> bool:
    """Return whether transitions to this state are logged at the level of this process."""
    return transition_log.isEnabledFor(_level_of(state))


def _level_of(state: str) -> int:
    return _LOG_LEVELS.get(state, logging.INFO)


def log_transition(event: Event) -> None:
    """Log one transition, at its own time."""
    fields = {
        "job": event.job_id,
        "namespace": event.namespace,
        "batch": event.batch,
        "stage": event.stage,
        "reason": event.reason,
    }
    extra: dict[str, object] = {name: str(value) for name, value in fields.items() if value}
    if event.previous_state_s is not None:
        extra["duration"] = event.previous_state_s
    transition_log.log(_level_of(event.state), event.state, extra={**extra, "at": event.sort_key})
