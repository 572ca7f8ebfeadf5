"""A job's life in the store, step by step, and what the store's keys must say of it at any time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

from tests.jobs import sung
from voicequeue import Clip, Code, Failure, Job, Stage, State, VoiceJob, records
from voicequeue.claims import Charged
from voicequeue.job import IN_FLIGHT, Move
from voicequeue.stage import PRICES
from voicequeue.store import Store

NOW = 1_760_000_000.0

#: The states that a job can be brought to; `waiting` is still to come.
REACHABLE = [state for state in State if state is not State.WAITING]


def put(store: Store, *specs: VoiceJob, now: float = NOW) -> list[str]:
    """Enqueue jobs in one call; their ids."""
    pairs = [(spec.id(), spec) for spec in specs]
    store.enqueue(pairs, now)
    return [job_id for job_id, _ in pairs]


def one(store: Store, job_id: str) -> Job:
    """That job."""
    [job] = store.get([job_id])
    assert job is not None
    return job


def move(job: Job, to: State, **rest: Any) -> Move:
    """The move from where the job stands; due at once if it leads into flight."""
    due = {"due": NOW} if to in IN_FLIGHT else {}
    return Move(job.id, job.version, job.state, job.stage, to, **{**due, **rest})


def make(store: Store, job: Job, to: State, now: float = NOW, **rest: Any) -> Job:
    """Make a move; the job as it stands then."""
    assert store.apply([move(job, to, **rest)], now) == [True]
    return one(store, job.id)


def charging(store: Store, job_id: str, now: float = NOW, *, lease: float = 90.0) -> Charged:
    """Claim an admitted job for its POST."""
    claim = store.charge(job_id, one(store, job_id).stage, "holder", now, lease=lease)
    assert claim is not None
    return claim


def accepted(store: Store, job_id: str, now: float = NOW, *, due: float | None = None) -> Job:
    """Upstream took the order of a job that is being charged."""
    job = one(store, job_id)
    fields = {records.task_field(job.stage): f"task-{job.stage}-{job_id}", "since": str(now)}
    due = now if due is None else due
    return make(store, job, State.PENDING, now, due=due, fields=fields, credits=PRICES[job.stage])


def failed(store: Store, job: Job, code: Code, now: float = NOW) -> Job:
    """The job failed, for that reason."""
    failure = records.failure_text(Failure(code, job.stage, "no"))
    return make(store, job, State.FAILED, now, reason=code, fields={"failure": failure, "settled": str(now)})


def brought_to(store: Store, state: State, spec: VoiceJob | None = None, now: float = NOW) -> Job:
    """A new job, alone in the store, brought to that state on the way that jobs go."""
    [job_id] = put(store, spec or sung(), now=now)
    if state is State.QUEUED:
        return one(store, job_id)
    if state is State.CANCELLED:
        return make(store, one(store, job_id), State.CANCELLED, now)
    store.admit(now, at_most=1_000)
    if state is State.ADMITTED:
        return one(store, job_id)
    charging(store, job_id, now)
    if state is State.CHARGING:
        return one(store, job_id)
    if state is State.UNSURE:
        return make(store, one(store, job_id), State.UNSURE, now, reason="no answer")
    pending = accepted(store, job_id, now)
    if state is State.PENDING:
        return pending
    if state is State.FAILED:
        return failed(store, pending, Code.UPSTREAM_FAILED, now)
    return make(store, pending, State.SUCCEEDED, now, fields={"settled": str(now)})


CLIPS = (
    Clip("c-1", "succeeded", "First, take", "https://cdn.example/1.mp3", "https://cdn.example/1.jpg", 61.5),
    Clip("c-2", "succeeded", None, "https://cdn.example/2.mp3", None, None),
)


def song_of(store: Store, **fields: Any) -> Job:
    """A job with two clips, both stages paid."""
    made = make(
        store,
        brought_to(store, State.PENDING, sung(**fields)),
        State.ADMITTED,
        to_stage=Stage.MUSIC,
        fields={"persona_id": "p-1", "voice_name": "ana"},
    )
    charging(store, made.id)
    clips = records.clips_text(CLIPS)
    return make(
        store, accepted(store, made.id), State.SUCCEEDED, NOW + 60, fields={"clips": clips, "settled": str(NOW + 60)}
    )


# ── all keys ──────────────────────────────────────────────────────────────────────────────────────


def dump(redis: Redis, prefix: str) -> dict[str, Any]:
    """Every key under a prefix, with all that is in it."""
    return {key: _value(redis, key) for key in sorted(_keys(redis, prefix))}


def _keys(redis: Redis, prefix: str) -> Iterator[str]:
    return cast(Iterator[str], redis.scan_iter(f"{{{prefix}}}:*", count=1_000))


def _value(redis: Redis, key: str) -> Any:
    kind = str(redis.type(key))
    match kind:
        case "hash":
            return redis.hgetall(key)
        case "zset":
            return dict(cast(list[tuple[str, float]], redis.zrange(key, 0, -1, withscores=True)))
        case "list":
            return redis.lrange(key, 0, -1)
        case "stream":
            return redis.xrange(key)
    raise AssertionError(f"{key} is a {kind}")


@dataclass(frozen=True)
class Told:
    """What the indexes and counters of a prefix say, or ought to say by the records."""

    backlog: set[str]
    flight: set[str]
    states: dict[str, set[str]]
    batches: dict[str, Counter[str]]
    members: dict[str, set[str]]
    batch_credits: Counter[str]
    credits: int


def by_the_records(keys: dict[str, Any], prefix: str) -> Told:
    """What follows from a full scan of the records alone."""
    found = {key.rpartition(":")[2]: record for key, record in keys.items() if key.startswith(f"{{{prefix}}}:job:")}
    states: dict[str, set[str]] = {}
    batches: dict[str, Counter[str]] = {}
    members: dict[str, set[str]] = {}
    credits: Counter[str] = Counter()
    for job_id, record in found.items():
        states.setdefault(record["state"], set()).add(job_id)
        if batch := record.get("batch"):
            batches.setdefault(batch, Counter())[record["state"]] += 1
            members.setdefault(batch, set()).add(job_id)
            credits[batch] += int(record.get("credits", 0))
    return Told(
        backlog=states.pop(State.QUEUED, set()),
        flight={job_id for job_id, record in found.items() if record["state"] in IN_FLIGHT},
        states=states,
        batches=batches,
        members=members,
        batch_credits=+credits,
        credits=sum(int(record.get("credits", 0)) for record in found.values()),
    )


def by_the_indexes(keys: dict[str, Any], prefix: str) -> Told:
    """What the sorted sets, the batch hashes and the counters say."""
    root = f"{{{prefix}}}:"
    names = keys.get(f"{root}batches", {})
    counted = {name: Counter(keys[f"{root}batch:{name}"]) for name in names}
    spent = keys.get(f"{root}counters", {})
    return Told(
        backlog=set(keys.get(f"{root}backlog", ())),
        flight=set(keys.get(f"{root}flight", ())),
        states={state: set(keys[f"{root}state:{state}"]) for state in State if f"{root}state:{state}" in keys},
        batches={name: +Counter({str(s): int(counts[s]) for s in State}) for name, counts in counted.items()},
        members={name: set(keys[f"{root}batch:{name}:jobs"]) for name in names},
        batch_credits=+Counter({name: int(counts["credits"]) for name, counts in counted.items()}),
        credits=sum(int(spent.get(f"{each}.credits", 0)) for each in (*Stage, "corrected")),
    )


def everything_agrees(redis: Redis, prefix: str) -> None:
    """The indexes and counters say what the records say."""
    keys = dump(redis, prefix)
    assert by_the_indexes(keys, prefix) == by_the_records(keys, prefix)


def ids(jobs: Iterable[Job | None]) -> list[str]:
    """Their ids."""
    return [job.id for job in jobs if job is not None]
