"""Whether a deployment is sound, as far as its Redis tells: what is wrong, and what to do. It only reads.

What is looked at (`look`) and what is made of it (`remarks`) are apart; the latter is pure.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from redis import Redis
from redis.exceptions import ResponseError

from voicequeue.auth import signatures
from voicequeue.domain.balance import Drift
from voicequeue.domain.gate import Gate, Reason
from voicequeue.domain.job import State
from voicequeue.domain.status import ArchiveCounts, CallbackCounts, RefusedJob
from voicequeue.storage.heartbeats import Heard
from voicequeue.storage.job_store import Store
from voicequeue.storage.key_types import WrongType
from voicequeue.storage.redis_refusals import RedisRefusalError

if TYPE_CHECKING:
    from voicequeue.domain import schemas

#: A process that was not heard for so long (seconds) is not there.
GONE_S = 15.0

#: Clocks that differ by more (seconds) are reported. Beyond `signing.TOLERANCE_S` signatures are refused.
APART_S = 2.0

#: Processes that sign, or check signatures, by their host's clock.
_SIGNING = frozenset({"gateway", "callbacks"})

#: Messages of one queue that nobody should have to wait behind.
PILED_UP = 1_000

#: So many jobs that upstream refuses are named.
REFUSED_NAMED = 5

#: What the scripts and kombu need.
OLDEST = {"Redis": (6, 2), "Valkey": (7, 2)}


class Level(StrEnum):
    """How bad it is."""

    FINE = "fine"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"
    #: Nothing can be said of it, for it does not answer.
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Remark:
    """What one check found, and what to do about it ('' where it is fine)."""

    check: str
    level: Level
    what: str
    todo: str = ""

    def as_dict(self) -> schemas.Remark:
        """Return the JSON representation."""
        return {"check": self.check, "level": self.level, "what": self.what, "todo": self.todo}


def fine(check: str, what: str) -> Remark:
    """All is well there."""
    return Remark(check, Level.FINE, what)


@dataclass(frozen=True)
class Facts:
    """What was seen of a queue and its Redis. `config` is empty where the server does not tell it; `ahead` is by how
    many seconds this machine's clock is; `write_refusal` is how it refuses writes."""

    info: Mapping[str, Any]
    config: Mapping[str, str]
    ahead: float
    heard: Sequence[Heard] = ()
    states: Mapping[State, int] = field(default_factory=dict)
    gate: Gate = field(default_factory=Gate)
    drift: Drift | None = None
    callbacks: CallbackCounts = field(default_factory=CallbackCounts)
    archive: ArchiveCounts = field(default_factory=ArchiveCounts)
    rejects: int = 0
    refused: Sequence[RefusedJob] = ()
    messages: Mapping[str, int] = field(default_factory=dict)
    write_refusal: RedisRefusalError | None = None
    wrong_types: Sequence[WrongType] = ()

    def of_kind(self, kind: str) -> list[Heard]:
        """The live processes of that kind."""
        return [heard for heard in self.heard if heard.kind == kind]


#: Celery's queues; their keys begin with `keyspace.celery_root`.
QUEUES = ("submit", "poll", "intake", "callbacks", "archive")


def look(redis: Redis, store: Store) -> Facts:
    """See everything. Raises RedisError."""
    seconds, microseconds = redis.time()
    wrong = store.wrong_types(QUEUES)
    now = seconds + microseconds / 1e6
    return Facts(
        info=redis.info(),
        config=_config(redis),
        ahead=time.time() - now,
        heard=[heard for pulses in store.pulses.values() for heard in pulses.since(now - GONE_S)],
        states=store.counts(),
        gate=store.controls.gate(now),
        drift=store.controls.account(now).drift,
        callbacks=store.callbacks.counted(now - GONE_S),
        archive=store.archive.counted(now - GONE_S),
        rejects=store.rejects.count(),
        refused=store.controls.refused(),
        messages=store.messages([queue for queue in QUEUES if queue not in {each.queue for each in wrong}]),
        write_refusal=_write_refusal(store),
        wrong_types=wrong,
    )


def _write_refusal(store: Store) -> RedisRefusalError | None:
    try:
        store.write_nothing()
    except RedisRefusalError as error:
        return error
    return None


def _config(redis: Redis) -> dict[str, str]:
    """Where a managed Redis does not tell its configuration, nothing."""
    try:
        return cast(dict[str, str], redis.config_get("appendonly", "appendfsync"))
    except ResponseError:
        return {}


def remarks(facts: Facts) -> Iterator[Remark]:
    """What is to be said of it."""
    yield _server(facts.info, facts.write_refusal)
    for wrong in facts.wrong_types:
        yield Remark("queues", Level.ERROR, str(wrong), wrong.cure)
    yield from _persistence(facts)
    yield from _memory(facts.info)
    yield from _clocks(facts)
    yield from _processes(facts)
    yield from _versions(facts.heard)
    yield from _work(facts)


def _server(info: Mapping[str, Any], refused: RedisRefusalError | None) -> Remark:
    product = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version", "0"))
    oldest = OLDEST[product]
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < oldest:
        least = ".".join(map(str, oldest))
        return Remark("redis", Level.ERROR, f"{product} {version} is too old", f"upgrade it to {least} or newer")
    if info.get("role", "master") != "master":
        todo = "let REDIS_URL name the primary"
        return Remark("redis", Level.ERROR, f"{product} {version} is a replica: nothing can be written there", todo)
    if refused is not None:
        return Remark("redis", Level.ERROR, f"{product} {version} refuses writes: {refused}", refused.cure)
    return fine("redis", f"{product} {version}")


def _persistence(facts: Facts) -> Iterator[Remark]:
    info, fsync = facts.info, facts.config.get("appendfsync")
    if not int(info.get("aof_enabled", 0)):
        yield Remark(
            "persistence",
            Level.ERROR,
            "Redis keeps no append-only file: a restart forgets jobs, and orders that were paid",
            "appendonly yes and appendfsync always (config/valkey.conf); of a managed Redis, its setting for that",
        )
    elif info.get("aof_last_write_status", "ok") != "ok" or info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield Remark("persistence", Level.ERROR, "Redis cannot write its file", "look at its log: is the disk full?")
    elif fsync is None:
        what = "Redis does not tell how often it writes its file to the disk"
        yield Remark("persistence", Level.NOTE, what, "it should be appendfsync always")
    elif fsync != "always":
        yield Remark(
            "persistence",
            Level.WARNING,
            f"appendfsync {fsync}: a Redis that is killed forgets the last second or two, and with it perhaps that an "
            "order was paid",
            "appendfsync always (config/valkey.conf)",
        )
    else:
        yield fine("persistence", "append-only file, written before it is confirmed")


_MORE_ROOM = (
    "give Redis more memory, or keep jobs that are over for less long (VOICEQUEUE_KEEP_DAYS): full, it takes no jobs, "
    "and no task ids"
)


def _memory(info: Mapping[str, Any]) -> Iterator[Remark]:
    policy, most = str(info.get("maxmemory_policy", "noeviction")), int(info.get("maxmemory", 0))
    if policy != "noeviction":
        what = f"maxmemory-policy {policy}: Redis throws keys away when it is full, job records among them"
        yield Remark("eviction", Level.ERROR, what, "maxmemory-policy noeviction (config/valkey.conf)")
    else:
        yield fine("eviction", "nothing is ever evicted")
    used, whole = int(info.get("used_memory", 0)), most or int(info.get("total_system_memory", 0))
    share = used / whole if whole else 0.0
    said = f"{used / 1e6:,.0f} MB of {whole / 1e6:,.0f} MB are used"
    if share > 0.8:
        level = Level.ERROR if share > 0.95 else Level.WARNING
        yield Remark("memory", level, said, _MORE_ROOM)
    else:
        yield fine("memory", said)


def _clocks(facts: Facts) -> Iterator[Remark]:
    here = Heard("doctor", "this machine", 0.0, {"ahead": facts.ahead})
    wrong = [heard for heard in (here, *facts.heard) if abs(heard.ahead) > APART_S]
    for heard in wrong:
        is_refused = heard.kind in _SIGNING and abs(heard.ahead) > signatures.TOLERANCE_S
        direction = "ahead of" if heard.ahead > 0 else "behind"
        what = f"the clock of {heard.name} is {abs(heard.ahead):,.0f} s {direction} Redis's"
        yield Remark(
            "clock",
            Level.ERROR if is_refused else Level.WARNING,
            f"{what}: signatures of webhooks and callbacks are refused" if is_refused else what,
            "synchronize the clocks (chrony, systemd-timesyncd): jobs go by Redis's clock, logs and signatures do not",
        )
    if not wrong:
        yield fine("clock", "all clocks agree")


def _processes(facts: Facts) -> Iterator[Remark]:
    workers = facts.of_kind("worker")
    if workers:
        yield fine("workers", f"{len(workers)} alive: {_names(workers)}")
    else:
        open_jobs = sum(n for state, n in facts.states.items() if state not in _SETTLED)
        yield Remark(
            "workers",
            Level.ERROR,
            f"no worker was heard in the last {GONE_S:.0f} s; {open_jobs:,} jobs wait for one",
            "start one: celery -A workers.app worker, or make up; its log says why it ended",
        )
    for kind, pending, what in (
        ("callbacks", facts.callbacks.pending, "callbacks"),
        ("archive", facts.archive.pending, "songs to be archived"),
    ):
        found = facts.of_kind(kind)
        if found:
            yield fine(kind, f"{len(found)} alive: {_names(found)}")
        elif pending:
            todo = f"start the process `{kind}` of the Procfile; they are kept meanwhile"
            yield Remark(kind, Level.ERROR, f"{pending:,} {what} wait, and no process `{kind}` was heard", todo)
    for name, count in facts.messages.items():
        if count > PILED_UP:
            todo = "start more workers, or one that consumes it (-Q)"
            yield Remark("messages", Level.WARNING, f"{count:,} messages lie in the queue {name}", todo)


#: Nothing is left to be done for jobs here, unless somebody wants it.
_SETTLED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.UNSURE})


def _names(heard: Sequence[Heard]) -> str:
    return ", ".join(sorted(each.name for each in heard))


def _versions(heard: Sequence[Heard]) -> Iterator[Remark]:
    telling = [each for each in heard if each.facts.get("version")]
    for fact, product, todo in (
        ("version", "voicequeue", "finish the deploy: restart what is left of the old release"),
        ("celery", "Celery", "install the locked requirements everywhere, and restart"),
    ):
        found = _grouped((each.facts.get(fact), each) for each in telling)
        which = "; ".join(f"{version} by {_names(group)}" for version, group in sorted(found.items()))
        if len(found) > 1:
            yield Remark("versions", Level.ERROR, f"several versions of {product} run: {which}", todo)
        elif found:
            yield fine("versions", f"{product} {next(iter(found))} everywhere")
    yield from _marks(telling)


def _grouped(told: Iterable[tuple[Any, Heard]]) -> dict[str, list[Heard]]:
    """By what they say; who says nothing is left out."""
    found: dict[str, list[Heard]] = {}
    for what, heard in told:
        if what is not None:
            found.setdefault(str(what), []).append(heard)
    return found


#: The mark of the second is made with the first: where that is not the same, it says nothing.
_SALT, _SALTED = "VOICEQUEUE_SECRET", "MUSICAPI_KEY"


def _marks(telling: Sequence[Heard]) -> Iterator[Remark]:
    """Settings that must be the same in all processes that report them; their values cannot be seen from here."""
    names = {name for each in telling for name in each.facts.get("marks", {})}
    different: dict[str, list[list[Heard]]] = {}
    for name in names:
        groups = _grouped((each.facts.get("marks", {}).get(name), each) for each in telling)
        if len(groups) > 1:
            different[name] = list(groups.values())
    if _SALT in different:
        different.pop(_SALTED, None)
    for name in sorted(different):
        yield _not_the_same(name, different[name])


def _not_the_same(name: str, groups: Sequence[Sequence[Heard]]) -> Remark:
    processes = [group for group in groups if any(each.kind != "doctor" for each in group)]
    if len(processes) == 1:
        what = f"{name} is another one in this shell than in {_names(processes[0])}"
        todo = "give this shell the environment of the processes: what it says of them is not theirs"
        return Remark("settings", Level.WARNING, what, todo)
    which = " and ".join(map(_names, processes))
    todo = "give all of them the same environment, and restart them"
    return Remark("settings", Level.ERROR, f"{name} is not the same for {which}", todo)


def _work(facts: Facts) -> Iterator[Remark]:
    for hold in facts.gate.holds:
        stands = "on trial" if hold.trial else "closed"
        what = f"the gate is {stands}: {hold.reason}" + (f" ({hold.detail})" if hold.detail else "")
        level = Level.ERROR if hold.reason == Reason.UNAUTHORIZED and not hold.trial else Level.WARNING
        yield Remark("gate", level, what, _TODO.get(hold.reason.partition(".")[0], ""))
    if facts.gate.open:
        yield fine("gate", "open")
    for job in facts.refused[:REFUSED_NAMED]:
        what = f"upstream refuses job {job.job_id} while it takes others, {job.times:,} times by now ({job.message})"
        yield Remark("jobs", Level.WARNING, what, "look at what it asks for; it fails by itself if that goes on")
    if len(facts.refused) > REFUSED_NAMED:
        what = f"upstream refuses {len(facts.refused) - REFUSED_NAMED:,} more jobs"
        yield Remark("jobs", Level.WARNING, what, "voicequeue status")
    if facts.drift is not None:
        # Others may use the account as well; a price that is another one is a matter for somebody.
        level = Level.NOTE if facts.drift.price is None else Level.WARNING
        yield Remark("account", level, str(facts.drift), "docs/runbook.md#voicequeuecreditsunexplained")
    for count, level, what, todo in (
        (facts.states.get(State.UNSURE, 0), Level.WARNING, "jobs may have been charged", "voicequeue review"),
        (facts.callbacks.undelivered, Level.WARNING, "callbacks were given up", "voicequeue callbacks"),
        (facts.archive.failed, Level.WARNING, "jobs' songs could not be archived", "voicequeue archive"),
        (facts.rejects, Level.NOTE, "messages became no job", "voicequeue rejects"),
    ):
        if count:
            yield Remark("jobs", level, f"{count:,} {what}", todo)


_TODO: Mapping[str, str] = {
    Reason.PAUSED: "voicequeue resume, when it shall go on",
    Reason.OUT_OF_CREDITS: "add credits; it goes on by itself",
    Reason.UNAUTHORIZED: "mend MUSICAPI_KEY, restart the workers, then: voicequeue resume",
    Reason.COOLDOWN: "nothing: it goes on by itself in a moment",
    Reason.UPSTREAM_DOWN: "nothing: one job at a time is tried, and it goes on by itself",
}
