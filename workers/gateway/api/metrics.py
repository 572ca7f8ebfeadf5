"""Prometheus metrics, read from Redis at each scrape and so independent of the number of gateways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool

from voicequeue.auth.api_keys import Scope
from voicequeue.domain.budgets import LEVELS, OWNER_KINDS, PERIODS
from voicequeue.domain.gate import HoldReason
from voicequeue.domain.spec import Priority
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import ACTIVE, IN_FLIGHT, SETTLED, State
from voicequeue.domain.status import BacklogLane, by_priority
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.erasure import ERASURE_MAX_S
from voicequeue.storage.job_store import JobStore
from voicequeue.version import VERSION
from workers.gateway.api.metric_families import PREFIX, counter, gauge
from workers.gateway.api.server_metrics import process_metrics, redis_metrics
from workers.gateway.openapi import problems
from workers.gateway.security.access import AccessControl, require_operator

#: All reasons of holds.
HOLD_REASONS = (*HoldReason, *(f"{HoldReason.PAUSED}.{stage}" for stage in Stage))

#: Name of the measurement, its label, the metric and its description.
HISTOGRAMS = (
    ("upstream_request", "operation", "upstream_request_duration_seconds", "Duration of requests to MusicAPI."),
    ("stage", "stage", "stage_duration_seconds", "Time from the submission of an order to its result."),
    (
        "result_detection_delay",
        "stage",
        "result_detection_delay_seconds",
        "Upper bound of the time between a result and its detection: since the last poll without it.",
    ),
)


def router(store: JobStore, access: AccessControl) -> APIRouter:
    """Return the route that Prometheus scrapes."""
    routes = APIRouter(tags=["Monitoring"], dependencies=access.require(Scope.READ))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(QueueCollector(store))

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"description": "The metrics.", "content": {"text/plain": {}}}, **problems(401, 403, 422, 503)},
    )
    async def get_metrics(request: Request) -> Response:
        """Get metrics for Prometheus.

        `Accept` selects the text format or OpenMetrics.
        """
        require_operator(request, "metrics")
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        with translated_errors():
            body = await run_in_threadpool(encode, registry)
        return Response(body, headers={"Content-Type": content_type})

    return routes


class QueueCollector(Collector):
    """Collects all metrics of one queue."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics. The time that it takes does not depend on the number of jobs."""
        store, now = self._store, self._store.clock()
        yield gauge("info", "The gateway's version.", [({"version": VERSION}, 1)])
        lines = store.lanes()
        yield from _jobs(store, lines)
        yield from _ages(store, lines, now)
        yield from _flow(store, now)
        yield _time_left(store, lines, now)
        yield from _credits(store, now)
        yield _budgets(store, now)
        yield from _requests(store)
        yield from _outcomes(store, now)
        yield from process_metrics(store, now)
        yield from redis_metrics(store)


def _jobs(store: JobStore, lines: list[BacklogLane]) -> Iterator[Metric]:
    songs = sum(line.with_voice for line in lines)
    queued = {Stage.VOICE: sum(line.count for line in lines) - songs, Stage.MUSIC: songs}
    counts = {(State.QUEUED, stage): count for stage, count in queued.items()} | store.counts_by_state_and_stage()
    yield gauge(
        "jobs",
        "Jobs by state and stage.",
        (({"state": state, "stage": stage}, count) for (state, stage), count in counts.items()),
    )
    yield gauge("failed_jobs", "Failed jobs by code.", (({"code": c}, n) for c, n in store.failures_by_code().items()))
    yield gauge(
        "stopped_batches",
        "Batches with unsettled jobs that have stopped themselves because too many of their jobs failed.",
        [({}, len(store.stopped_batches()))],
    )
    purged = store.purged_by_state()
    settled = {
        final: purged.get(final, 0) + sum(n for (state, _), n in counts.items() if state is final)
        for final in sorted(SETTLED)
    }
    yield gauge(
        "settled_jobs",
        "Jobs in each final state, with those that were deleted since.",
        (({"state": state}, count) for state, count in settled.items()),
    )
    yield counter(
        "purged_jobs", "Jobs deleted after their retention period.", (({"state": s}, n) for s, n in purged.items())
    )


def _ages(store: JobStore, lines: list[BacklogLane], now: float) -> Iterator[Metric]:
    backlog = {priority: list(lanes) for priority, lanes in by_priority(tuple(lines))}
    yield gauge(
        "backlog_jobs",
        "Queued jobs by priority.",
        (({"priority": priority}, sum(line.count for line in backlog.get(priority, ()))) for priority in Priority),
    )
    yield gauge(
        "oldest_queued_age_seconds",
        "Age of the oldest queued job of each priority; 0 if there is none.",
        (
            ({"priority": priority}, _age(now, (line.oldest_at for line in backlog.get(priority, ()))))
            for priority in Priority
        ),
    )
    yield gauge(
        "oldest_in_flight_age_seconds",
        "Time since the oldest job of each state in flight entered it; 0 if there is none.",
        (
            ({"state": state}, _age(now, [] if (since := store.oldest_entry(state)) is None else [since]))
            for state in State
            if state in IN_FLIGHT
        ),
    )
    unsure = store.oldest_entry(State.UNSURE)
    yield gauge(
        "oldest_unsure_age_seconds",
        "Time since the oldest unsure job became unsure; 0 if there is none.",
        [({}, _age(now, [] if unsure is None else [unsure]))],
    )


def _flow(store: JobStore, now: float) -> Iterator[Metric]:
    flow = store.flow_control.in_flight_limit()
    yield gauge("in_flight_jobs", "Jobs in flight.", [({}, store.count_in_flight())])
    yield gauge("in_flight_limit", "Current limit of jobs in flight.", [({}, flow.limit)])
    yield gauge("in_flight_limit_max", "Configured maximum of the in-flight limit.", [({}, flow.maximum)])
    closed = {hold.reason for hold in store.flow_control.gate(now).holds}
    yield gauge(
        "gate_closed",
        "1 while submission is stopped for this reason, else 0.",
        (({"reason": reason}, int(reason in closed)) for reason in HOLD_REASONS),
    )


def _time_left(store: JobStore, lines: list[BacklogLane], now: float) -> Metric:
    states, pace = store.counts_by_state(lanes=lines), store.jobs_per_minute(now)
    return gauge(
        "time_left_seconds",
        "Time to settle all jobs at the pace of the last five minutes; absent while no job succeeds.",
        [({}, sum(states[state] for state in ACTIVE) * 60 / pace)] if pace else [],
    )


def _credits(store: JobStore, now: float) -> Iterator[Metric]:
    charged, account = store.orders_by_stage(), store.flow_control.account(now)
    yield counter(
        "charges", "Orders charged by MusicAPI.", (({"stage": stage}, n) for stage, (n, _) in charged.items())
    )
    yield counter(
        "credits_spent", "Credits charged by MusicAPI.", (({"stage": stage}, n) for stage, (_, n) in charged.items())
    )
    yield gauge("credits_reserved", "Credits reserved for jobs in flight and unsure jobs.", [({}, account.reserved)])
    yield gauge(
        "credits_queued",
        "Credits that queued and waiting jobs will take in addition to the reserved ones.",
        [({}, account.queued_credits)],
    )
    yield gauge(
        "credits_unexplained",
        "Credits that left the account without a known order.",
        [({}, account.uncounted.unexplained if account.uncounted else 0)],
    )
    yield gauge("credits_min_balance", "Minimum balance to keep.", [({}, store.flow_control.limits().min_balance)])
    yield gauge(
        "credits_balance",
        "Credits on the account: the last balance minus what was spent since; absent until it is known.",
        [] if account.balance is None else [({}, account.balance)],
    )
    yield gauge(
        "credits_checked_timestamp_seconds",
        "Time of the last balance check.",
        [] if account.updated_at is None else [({}, account.updated_at)],
    )


def _budgets(store: JobStore, now: float) -> Metric:
    counts = Counter((budget.owner.partition("/")[0], budget.period, budget.level) for budget in store.budgets(now))
    return gauge(
        "budgets_used",
        "Budgets of which that percentage is used or reserved; 100: what remains pays no voice with a song.",
        (
            ({"owner": kind, "period": period, "percent": str(level)}, counts[kind, period, level])
            for kind in OWNER_KINDS
            for period in PERIODS
            for level in LEVELS
        ),
    )


def _requests(store: JobStore) -> Iterator[Metric]:
    counters = store.metrics.read()
    yield counter(
        "upstream_requests",
        "Requests to MusicAPI by operation and outcome (rate_limited: 429).",
        (
            ({"operation": operation, "outcome": outcome}, n)
            for (operation, outcome), n in counters.counters_under("upstream_request")
        ),
    )
    yield counter(
        "callback_attempts",
        "Attempts to deliver callbacks, by outcome.",
        (({"outcome": outcome}, n) for (outcome,), n in counters.counters_under("callback_attempt")),
    )
    yield counter(
        "recording_checks",
        "Checks of recordings before their order, by result.",
        (({"result": result}, n) for (result,), n in counters.counters_under("recording_check")),
    )
    for what, label, name, description in HISTOGRAMS:
        family = HistogramMetricFamily(PREFIX + name, description, labels=[label])
        for value, histogram in counters.histograms_of(what):
            family.add_metric([value], list(histogram.cumulative()), histogram.sum)
        yield family


def _outcomes(store: JobStore, now: float) -> Iterator[Metric]:
    callbacks, archive = store.callbacks.counts(now), store.archive.counts(now)
    undelivered = {"pending": callbacks.pending, "undelivered": callbacks.undelivered}
    yield gauge(
        "callbacks", "Callbacks not delivered yet, by state.", (({"state": s}, n) for s, n in undelivered.items())
    )
    yield counter("callbacks_delivered", "Callbacks delivered.", [({}, callbacks.delivered)])
    songs = {"pending": archive.pending, "failed": archive.failed}
    yield gauge(
        "archive_jobs",
        "Jobs whose songs are not archived yet, by state.",
        (({"state": s}, n) for s, n in songs.items()),
    )
    yield counter("archived_jobs", "Jobs archived.", [({}, archive.jobs)])
    yield counter("archived_files", "Files archived.", [({}, archive.files)])
    late_erasures = store.erasure.count_unfinished(now - ERASURE_MAX_S)
    yield gauge("late_erasures", "Erasures of jobs that are not complete after a day.", [({}, late_erasures)])
    yield gauge("rejected_messages", "Rejected messages kept.", [({}, store.rejected_messages.count())])


def _age(now: float, times: Iterable[float]) -> float:
    return max(0.0, now - min(times, default=now))
