"""Check a deployment by its Redis: report what is wrong, and what to do. It only reads.

`inspect` collects the facts; `results` evaluates them and is pure.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from voicequeue.auth import signatures
from voicequeue.diagnostics import consumption, redis_server
from voicequeue.diagnostics.check_result import CheckResult, Level, passed
from voicequeue.diagnostics.redis_server import RedisServer
from voicequeue.domain.balance import UncountedSpending
from voicequeue.domain.gate import Gate, HoldReason
from voicequeue.domain.states import INACTIVE, State
from voicequeue.domain.status import ArchiveCounts, CallbackCounts, RefusedJob
from voicequeue.storage.celery_queues import QUEUE_NAMES
from voicequeue.storage.connection.key_types import WrongType
from voicequeue.storage.connection.refusals import RedisRefusalError
from voicequeue.storage.erasure import ERASURE_MAX_S
from voicequeue.storage.heartbeats import DAY_S, HEARTBEAT_TIMEOUT_S, ROTATION_MARK, ProcessHeartbeat
from voicequeue.storage.job_store import JobStore
from voicequeue.texts import pluralize

#: Clocks that differ by more (seconds) are reported. Beyond `signatures.TOLERANCE_S` signatures are rejected.
CLOCK_SKEW_MAX_S = 2.0

#: Processes that sign, or check signatures, by their host's clock.
_SIGNING = frozenset({"gateway", "callbacks"})

#: An old value of VOICEQUEUE_SECRET that is accepted for longer (days) is a warning: its rotation was forgotten.
OLD_SECRET_MAX_DAYS = 7

#: The most messages in one queue that are not reported.
MESSAGES_MAX = 1_000

#: How long a job may wait for its order while the gate is open (seconds).
ADMITTED_MAX_S = 600

#: The most refused jobs that are listed by their id.
REFUSED_LISTED = 5


@dataclass(frozen=True)
class Facts:
    """The state of a queue and its Redis.

    `clock_skew_s`: how far this machine's clock is ahead of Redis's,
    in seconds. `write_refusal`: the error with which Redis rejects writes.
    """

    server: RedisServer
    clock_skew_s: float
    processes: Sequence[ProcessHeartbeat] = ()
    states: Mapping[State, int] = field(default_factory=dict)
    gate: Gate = field(default_factory=Gate)
    uncounted: UncountedSpending | None = None
    callbacks: CallbackCounts = field(default_factory=CallbackCounts)
    archive: ArchiveCounts = field(default_factory=ArchiveCounts)
    rejects: int = 0
    #: Jobs whose erasure was requested more than a day ago and is not complete.
    late_erasures: int = 0
    #: For how long the job that was admitted first has waited for its order, in seconds.
    admitted_s: float = 0.0
    refused_jobs: Sequence[RefusedJob] = ()
    message_counts: Mapping[str, int] = field(default_factory=dict)
    #: By mark of an old value of VOICEQUEUE_SECRET: seconds since a process first reported it.
    old_secrets: Mapping[str, float] = field(default_factory=dict)
    write_refusal: RedisRefusalError | None = None
    wrong_types: Sequence[WrongType] = ()

    def of_kind(self, kind: str) -> list[ProcessHeartbeat]:
        """Return the running processes of a kind."""
        return [process for process in self.processes if process.kind == kind]


def inspect(redis: Redis, store: JobStore) -> Facts:
    """Collect the facts. Raises RedisError."""
    seconds, microseconds = redis.time()
    wrong_types = store.wrong_types(QUEUE_NAMES)
    now = seconds + microseconds / 1e6
    return Facts(
        server=redis_server.read(redis),
        clock_skew_s=time.time() - now,
        processes=[process for heartbeats in store.heartbeats.values() for process in heartbeats.alive(now)],
        states=store.counts_by_state(),
        gate=store.flow_control.gate(now),
        uncounted=store.flow_control.account(now).uncounted,
        callbacks=store.callbacks.counts(now - HEARTBEAT_TIMEOUT_S),
        archive=store.archive.counts(now - HEARTBEAT_TIMEOUT_S),
        rejects=store.rejected_messages.count(),
        late_erasures=store.erasure.count_unfinished(now - ERASURE_MAX_S),
        admitted_s=now - (store.oldest_entry(State.ADMITTED) or now),
        refused_jobs=store.flow_control.refused_jobs(),
        message_counts=store.count_messages(
            [queue for queue in QUEUE_NAMES if queue not in {key.queue for key in wrong_types}]
        ),
        old_secrets={mark: now - at for mark, at in store.heartbeats["worker"].old_secrets().items()},
        write_refusal=_write_refusal(store),
        wrong_types=wrong_types,
    )


def _write_refusal(store: JobStore) -> RedisRefusalError | None:
    try:
        store.check_writable()
    except RedisRefusalError as error:
        return error
    return None


def results(facts: Facts) -> Iterator[CheckResult]:
    """Evaluate the facts."""
    for wrong_type in facts.wrong_types:
        yield CheckResult("queues", Level.ERROR, str(wrong_type), wrong_type.cure)
    yield from redis_server.results(facts.server, facts.write_refusal)
    yield from _clocks(facts)
    yield from _processes(facts)
    yield from consumption.results(facts.processes, facts.message_counts)
    yield from _versions(facts.processes)
    yield from _old_secrets(facts)
    yield from _work(facts)


def _clocks(facts: Facts) -> Iterator[CheckResult]:
    here = ProcessHeartbeat("doctor", "this machine", 0.0, {"ahead": facts.clock_skew_s})
    deviating = [process for process in (here, *facts.processes) if abs(process.clock_ahead_s) > CLOCK_SKEW_MAX_S]
    for process in deviating:
        is_refused = process.kind in _SIGNING and abs(process.clock_ahead_s) > signatures.TOLERANCE_S
        direction = "ahead of" if process.clock_ahead_s > 0 else "behind"
        what = f"the clock of {process.name} is {abs(process.clock_ahead_s):,.0f} s {direction} Redis's"
        yield CheckResult(
            "clock",
            Level.ERROR if is_refused else Level.WARNING,
            f"{what}: signatures of webhooks and callbacks are rejected" if is_refused else what,
            "synchronize the clocks (chrony, systemd-timesyncd): logs and signatures use them, jobs use Redis's",
        )
    if not deviating:
        yield passed("clock", "all clocks agree")


def _processes(facts: Facts) -> Iterator[CheckResult]:
    workers = facts.of_kind("worker")
    if workers:
        yield passed("workers", f"{len(workers)} alive: {_names(workers)}")
    else:
        open_jobs = sum(n for state, n in facts.states.items() if state not in INACTIVE)
        yield CheckResult(
            "workers",
            Level.ERROR,
            f"no worker has sent a heartbeat in the last {HEARTBEAT_TIMEOUT_S:.0f} s; "
            f"{pluralize(open_jobs, 'job')} in the queue",
            "let Redis accept writes first: until then no heartbeat can arrive"
            if facts.write_refusal
            else "start one: python -m workers worker, or make up; its log shows why it stopped",
        )
    for kind, pending, what in (
        ("callbacks", facts.callbacks.pending, "pending callback"),
        ("archive", facts.archive.pending, "job to archive"),
    ):
        processes = facts.of_kind(kind)
        yield from _storage_errors(processes)
        if processes:
            yield passed(kind, f"{len(processes)} alive: {_names(processes)}")
        elif pending:
            todo = f"start the process `{kind}` of the Procfile; nothing is lost until then"
            yield CheckResult(
                kind, Level.ERROR, f"{pluralize(pending, what)}, but no process `{kind}` is running", todo
            )
    for name, count in facts.message_counts.items():
        if count > MESSAGES_MAX:
            todo = "start more workers, or one that consumes it (-Q)"
            yield CheckResult("messages", Level.WARNING, f"{pluralize(count, 'message')} in the queue {name}", todo)


def _storage_errors(processes: Sequence[ProcessHeartbeat]) -> Iterator[CheckResult]:
    """Report the processes that cannot store songs. Only they reach their disks."""
    for process in processes:
        if process.storage_error:
            minutes = process.storage_failing_s(process.last_heartbeat) / 60
            what = f"{process.name} cannot store songs, for {minutes:,.0f} min now: {process.storage_error}"
            yield CheckResult("archive", Level.ERROR, what, "docs/guides/archive.md#troubleshooting")


def _names(processes: Sequence[ProcessHeartbeat]) -> str:
    return ", ".join(sorted(process.name for process in processes))


def _versions(processes: Sequence[ProcessHeartbeat]) -> Iterator[CheckResult]:
    reporting = [process for process in processes if process.facts.get("version")]
    for fact, product, todo in (
        (
            "version",
            "voicequeue",
            "finish the upgrade: restart the processes of the old release (docs/guides/upgrading.md)",
        ),
        ("celery", "Celery", "install the locked requirements everywhere, and restart"),
    ):
        groups = _grouped((process.facts.get(fact), process) for process in reporting)
        versions = "; ".join(f"{version} by {_names(group)}" for version, group in sorted(groups.items()))
        if len(groups) > 1:
            yield CheckResult("versions", Level.WARNING, f"several versions of {product} are running: {versions}", todo)
        elif groups:
            yield passed("versions", f"{product} {next(iter(groups))} everywhere")
    yield from _marks(reporting)


def _grouped(pairs: Iterable[tuple[Any, ProcessHeartbeat]]) -> dict[str, list[ProcessHeartbeat]]:
    """Group processes by a value, without those that report none."""
    groups: dict[str, list[ProcessHeartbeat]] = {}
    for value, process in pairs:
        if value is not None:
            groups.setdefault(str(value), []).append(process)
    return groups


#: The mark of the second setting is keyed with the first: if that differs, the mark cannot be compared.
_SALT, _SALTED = "VOICEQUEUE_SECRET", "MUSICAPI_KEY"


def _marks(reporting: Sequence[ProcessHeartbeat]) -> Iterator[CheckResult]:
    """Compare the settings that must be the same in all processes that report them. Values are not visible here."""
    names = {name for process in reporting for name in process.facts.get("marks", {})}
    different: dict[str, list[list[ProcessHeartbeat]]] = {}
    for name in names:
        groups = _grouped((process.facts.get("marks", {}).get(name), process) for process in reporting)
        if len(groups) > 1:
            different[name] = list(groups.values())
    if _SALT in different:
        different.pop(_SALTED, None)
    for name in sorted(different):
        yield _difference(name, different[name])


def _difference(name: str, groups: Sequence[Sequence[ProcessHeartbeat]]) -> CheckResult:
    processes = [group for group in groups if any(process.kind != "doctor" for process in group)]
    if len(processes) == 1:
        what = f"{name} differs between this shell and {_names(processes[0])}"
        todo = "give this shell the environment of the processes; otherwise the other results do not apply to them"
        return CheckResult("settings", Level.WARNING, what, todo)
    names = " and ".join(map(_names, processes))
    todo = "give all of them the same environment, and restart them"
    return CheckResult("settings", Level.ERROR, f"{name} is not the same for {names}", todo)


def _old_secrets(facts: Facts) -> Iterator[CheckResult]:
    """Report an old value of the secret that is still accepted: a rotation ends with its removal."""
    for mark, group in _grouped((process.facts.get(ROTATION_MARK), process) for process in facts.processes).items():
        days = facts.old_secrets.get(mark, 0.0) / DAY_S
        level = Level.WARNING if days > OLD_SECRET_MAX_DAYS else Level.NOTE
        what = f"{_names(group)} still accepts the old value of VOICEQUEUE_SECRET, for {days:,.0f} days now"
        todo = "after two days, remove the second value from VOICEQUEUE_SECRET and restart web and worker"
        yield CheckResult("secret", level, what, todo)


def _work(facts: Facts) -> Iterator[CheckResult]:
    for hold in facts.gate.holds:
        state = "on trial" if hold.is_on_trial else "closed"
        what = f"the gate is {state}: {hold.reason}" + (f" ({hold.detail})" if hold.detail else "")
        level = Level.ERROR if hold.reason == HoldReason.UNAUTHORIZED and not hold.is_on_trial else Level.WARNING
        yield CheckResult("gate", level, what, _TODO.get(hold.reason.partition(".")[0], ""))
    if facts.gate.is_open:
        yield passed("gate", "open")
        if facts.admitted_s > ADMITTED_MAX_S:
            what = f"a job has had a slot for {facts.admitted_s / 60:,.0f} min, and its order is not sent"
            yield CheckResult("jobs", Level.WARNING, what, "docs/guides/runbook.md#voicequeuejobsstuck")
    for job in facts.refused_jobs[:REFUSED_LISTED]:
        times = pluralize(job.refusals, "time")
        what = f"upstream refuses job {job.job_id} while it accepts others, {times} so far ({job.message})"
        yield CheckResult("jobs", Level.WARNING, what, "check its fields; the job fails if upstream keeps refusing it")
    if len(facts.refused_jobs) > REFUSED_LISTED:
        what = f"upstream refuses {pluralize(len(facts.refused_jobs) - REFUSED_LISTED, 'more job')}"
        yield CheckResult("jobs", Level.WARNING, what, "voicequeue status")
    if facts.uncounted is not None:
        # The account may have other users. A changed price requires an operator.
        level = Level.NOTE if facts.uncounted.price is None else Level.WARNING
        yield CheckResult(
            "account", level, str(facts.uncounted), "docs/guides/runbook.md#voicequeueunexplainedspending"
        )
    for count, level, noun, what, todo in (
        (facts.states.get(State.UNSURE, 0), Level.WARNING, "job", " may have been charged", "voicequeue review"),
        (facts.callbacks.undelivered, Level.WARNING, "undelivered callback", "", "voicequeue callbacks"),
        (facts.archive.failed, Level.WARNING, "job", " with songs that could not be archived", "voicequeue archive"),
        (
            facts.late_erasures,
            Level.WARNING,
            "job",
            " not erased after a day",
            "docs/guides/erasure.md#when-it-does-not-end",
        ),
        (facts.rejects, Level.NOTE, "rejected message", "", "voicequeue rejects"),
    ):
        if count:
            yield CheckResult("jobs", level, f"{pluralize(count, noun)}{what}", todo)


_TODO: Mapping[str, str] = {
    HoldReason.PAUSED: "voicequeue resume, to continue",
    HoldReason.OUT_OF_CREDITS: "add credits; the gate then opens by itself",
    HoldReason.UNAUTHORIZED: "correct MUSICAPI_KEY, restart the workers, then: voicequeue resume",
    HoldReason.COOLDOWN: "nothing: the gate opens by itself in a moment",
    HoldReason.UPSTREAM_DOWN: "nothing: one job at a time is tried, and the gate opens by itself",
    HoldReason.UNREPLICATED: "connect the replicas of Redis, or lower VOICEQUEUE_REPLICAS_ACK; the gate then opens by "
    "itself",
}
