"""`/metrics` for Prometheus, read from Redis at each scrape: right with any number of processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import version

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool

from voicequeue.auth.api_keys import Scope
from voicequeue.domain.gate import Reason
from voicequeue.domain.job import State
from voicequeue.domain.spec import Priority
from voicequeue.domain.stage import Stage
from voicequeue.domain.status import Line, by_priority
from voicequeue.storage.connection.errors import reachable
from voicequeue.storage.job_store import Store
from workers.gateway.auth import Access
from workers.gateway.openapi import problems

#: Everything that may hold charges back.
REASONS = (*Reason, *(f"{Reason.PAUSED}.{stage}" for stage in Stage))

#: A process that was not heard for so long (seconds) has been replaced by another, and is no longer told.
HEARD_S = 3600.0

PREFIX = "voicequeue_"

#: What is measured, the label that says of what, the metric and its text.
HISTOGRAMS = (
    ("call", "operation", "upstream_request_duration_seconds", "How long calls to upstream took."),
    ("stage", "stage", "stage_duration_seconds", "From an order to when its result was seen."),
    (
        "lateness",
        "stage",
        "detection_lateness_seconds",
        "How long a result may have been ready when it was seen: since upstream last said that it was not.",
    ),
)

Samples = Iterable[tuple[dict[str, str], float]]


def router(store: Store, access: Access) -> APIRouter:
    """The route that Prometheus scrapes."""
    routes = APIRouter(tags=["health"], dependencies=access.needs(Scope.READ))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Numbers(store))

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"description": "All metrics.", "content": {"text/plain": {}}}, **problems(401, 403, 503)},
    )
    async def metrics(request: Request) -> Response:
        """Numbers for Prometheus, in its text format or OpenMetrics, as `Accept` says."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        with reachable():
            numbers = await run_in_threadpool(encode, registry)
        return Response(numbers, headers={"Content-Type": content_type})

    return routes


class Numbers(Collector):
    """Everything that is told of one queue."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now. Nothing that is read for them grows with the number of jobs."""
        store, now = self._store, self._store.clock()
        yield _gauge("info", "The gateway's version.", [({"version": version("voicequeue")}, 1)])
        lines = store.lines()
        yield from _jobs(store, lines)
        yield from _ages(store, lines, now)
        yield from _flow(store, now)
        yield from _money(store, now)
        yield from _counted(store)
        yield from _told(store, now)
        yield _gauge(
            "pulse_age_seconds",
            "How long ago each process was heard, of those that were in the last hour.",
            (
                ({"kind": heard.kind, "worker": heard.name}, max(0.0, now - heard.at))
                for pulses in store.pulses.values()
                for heard in pulses.since(now - HEARD_S)
            ),
        )


def _jobs(store: Store, lines: list[Line]) -> Iterator[Metric]:
    songs = sum(line.songs for line in lines)
    queued = {Stage.VOICE: sum(line.count for line in lines) - songs, Stage.MUSIC: songs}
    places = {(State.QUEUED, stage): count for stage, count in queued.items()} | store.stands()
    yield _gauge(
        "jobs",
        "Jobs by state and stage.",
        (({"state": state, "stage": stage}, count) for (state, stage), count in places.items()),
    )
    yield _gauge(
        "failed_jobs", "Jobs that stand failed, by code.", (({"code": c}, n) for c, n in store.failures().items())
    )
    purged = store.purged()
    yield _counter("purged_jobs", "Jobs that are not kept any more.", (({"state": s}, n) for s, n in purged.items()))


def _ages(store: Store, lines: list[Line], now: float) -> Iterator[Metric]:
    backlog = {priority: list(found) for priority, found in by_priority(tuple(lines))}
    yield _gauge(
        "backlog_jobs",
        "Queued jobs by priority.",
        (({"priority": each}, sum(line.count for line in backlog.get(each, ()))) for each in Priority),
    )
    yield _gauge(
        "oldest_queued_seconds",
        "How long the oldest queued job of each priority has been waiting; 0 where none is.",
        (({"priority": each}, _age(now, (line.oldest for line in backlog.get(each, ())))) for each in Priority),
    )
    unsure = store.oldest(State.UNSURE)
    yield _gauge(
        "oldest_unsure_seconds",
        "How long the oldest unsure job has been so; 0 where none is.",
        [({}, _age(now, [] if unsure is None else [unsure]))],
    )


def _flow(store: Store, now: float) -> Iterator[Metric]:
    flow = store.controls.flow()
    yield _gauge("in_flight_jobs", "Jobs that hold a slot.", [({}, store.in_flight())])
    yield _gauge("in_flight_limit", "Jobs that may hold a slot now.", [({}, flow.limit)])
    yield _gauge("in_flight_limit_max", "Jobs that may ever hold a slot, by the settings.", [({}, flow.most)])
    closed = {hold.reason for hold in store.controls.gate(now).holds}
    yield _gauge(
        "gate_closed",
        "Whether nothing new is charged for this reason (1) or not (0).",
        (({"reason": reason}, int(reason in closed)) for reason in REASONS),
    )


def _money(store: Store, now: float) -> Iterator[Metric]:
    charged, account = store.charged(), store.controls.account(now)
    yield _counter(
        "charges", "Orders that upstream charged.", (({"stage": stage}, n) for stage, (n, _) in charged.items())
    )
    yield _counter("credits_spent", "What they cost.", (({"stage": stage}, n) for stage, (_, n) in charged.items()))
    promised = "Credits that are promised to jobs in flight and unsure ones."
    yield _gauge("credits_committed", promised, [({}, account.committed)])
    yield _gauge(
        "credits_unexplained",
        "Credits that left the account, and that no order explains.",
        [({}, account.drift.unexplained if account.drift else 0)],
    )
    yield _gauge("credits_floor", "Credits that are not touched.", [({}, store.controls.limits().credit_floor)])
    yield _gauge(
        "credits_left",
        "Credits left on the account by our count; not there until upstream was asked.",
        [] if account.left is None else [({}, account.left)],
    )
    yield _gauge(
        "credits_asked_timestamp_seconds",
        "When upstream said last what is left.",
        [] if account.at is None else [({}, account.at)],
    )


def _counted(store: Store) -> Iterator[Metric]:
    tallied = store.tally.read()
    yield _counter(
        "upstream_requests",
        "Calls to upstream by operation (task: polls) and outcome (slow_down: 429).",
        (({"operation": operation, "outcome": outcome}, n) for (operation, outcome), n in tallied.under("call")),
    )
    yield _counter(
        "callback_tries",
        "Callbacks that were sent, by outcome.",
        (({"outcome": outcome}, n) for (outcome,), n in tallied.under("try")),
    )
    for what, label, name, meaning in HISTOGRAMS:
        family = HistogramMetricFamily(PREFIX + name, meaning, labels=[label])
        for of, found in tallied.measured(what):
            family.add_metric([of], list(found.cumulated()), found.sum)
        yield family


def _told(store: Store, now: float) -> Iterator[Metric]:
    callbacks, archive = store.callbacks.counted(now), store.archive.counted(now)
    waiting = {"pending": callbacks.pending, "undelivered": callbacks.undelivered}
    yield _gauge("callbacks", "Callbacks that were not delivered.", (({"state": s}, n) for s, n in waiting.items()))
    yield _counter("callbacks_delivered", "Callbacks that were.", [({}, callbacks.delivered)])
    songs = {"pending": archive.pending, "failed": archive.failed}
    yield _gauge("archive_jobs", "Jobs whose songs are not archived.", (({"state": s}, n) for s, n in songs.items()))
    yield _counter("archived_jobs", "Jobs whose songs are.", [({}, archive.jobs)])
    yield _counter("archived_files", "Their files.", [({}, archive.files)])
    yield _gauge("rejected_messages", "Messages that became no job and are kept.", [({}, store.rejects.count())])


def _age(now: float, times: Iterable[float]) -> float:
    return max(0.0, now - min(times, default=now))


def _gauge(name: str, meaning: str, samples: Samples) -> Metric:
    return _filled(GaugeMetricFamily(PREFIX + name, meaning), samples)


def _counter(name: str, meaning: str, samples: Samples) -> Metric:
    return _filled(CounterMetricFamily(PREFIX + name, meaning), samples, suffix="_total")


def _filled(family: Metric, samples: Samples, suffix: str = "") -> Metric:
    for labels, value in samples:
        family.add_sample(family.name + suffix, {name: str(of) for name, of in labels.items()}, value)
    return family
