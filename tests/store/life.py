"""Steps in the life of a job in the store, and checks that all keys agree with the records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

from tests.store.spending import (
    counted_periods,
    queued_credits,
    reserved_credits,
    spenders,
    spent_periods,
    unsettled_credits,
)
from tests.support.jobs import voice_with_song
from voicequeue import Clip, Failure, FailureCode, Job, Stage, State, VoiceJob
from voicequeue.domain import serialization, transitions
from voicequeue.domain.claims import ChargedOrder, StalledJob, SubmitClaim, SubmitDeferred
from voicequeue.domain.gate import HoldEffect, HoldReason, Refusal
from voicequeue.domain.job import Transition
from voicequeue.domain.namespaces import index_of, namespace_of, split
from voicequeue.domain.source import Source
from voicequeue.domain.stage import PRICES
from voicequeue.domain.states import IN_FLIGHT, MAY_HAVE_LATE_RESULT, SETTLED
from voicequeue.storage.job_queries import SONG_SCORE_OFFSET
from voicequeue.storage.job_store import JobStore

NOW = 1_760_000_000.0

#: The states that a job can be brought to; `waiting` is still to come.
REACHABLE = [state for state in State if state is not State.WAITING]


def enqueue_jobs(store: JobStore, *specs: VoiceJob, now: float = NOW, source: str = Source.LIBRARY) -> list[str]:
    """Enqueue jobs in one call and return their ids."""
    pairs = [(spec.job_id(namespace=store.scope.target), spec) for spec in specs]
    store.enqueue(pairs, now, source=source)
    return [job_id for job_id, _ in pairs]


def get_job(store: JobStore, job_id: str) -> Job:
    """Return the job."""
    [job] = store.get([job_id])
    assert job is not None
    return job


def transition_of(job: Job, to: State, **rest: Any) -> Transition:
    """Return a transition of the job, due now if it leads into flight."""
    due = {"due": NOW} if to in IN_FLIGHT else {}
    return Transition(job.id, job.version, job.state, job.stage, to, **{**due, **rest})


def apply_transition(store: JobStore, job: Job, to: State, now: float = NOW, **rest: Any) -> Job:
    """Apply a transition and return the job."""
    assert store.apply_transitions([transition_of(job, to, **rest)], now) == [True]
    return get_job(store, job.id)


def claim_submit(
    store: JobStore, job_id: str, stage: Stage, holder: str, now: float, *, lease: float
) -> SubmitClaim | SubmitDeferred | StalledJob | None:
    """Claim one job for submission."""
    [claim] = store.claim_submit([job_id], stage, holder, now, lease_s=lease)
    return claim


def claim_admitted(store: JobStore, job_id: str, now: float = NOW, *, lease: float = 90.0) -> SubmitClaim:
    """Claim an admitted job for its POST."""
    claim = claim_submit(store, job_id, get_job(store, job_id).stage, "holder", now, lease=lease)
    assert isinstance(claim, SubmitClaim)
    return claim


def accept_order(store: JobStore, job_id: str, now: float = NOW, *, due: float | None = None) -> Job:
    """Upstream accepted the order of a charging job."""
    job = get_job(store, job_id)
    fields = {serialization.task_field(job.stage): f"task-{job.stage}-{job_id}", "submitted_at": str(now)}
    due = now if due is None else due
    return apply_transition(store, job, State.PENDING, now, due=due, fields=fields, credits=PRICES[job.stage])


#: Waits of a refusal in tests, in seconds.
PAUSE_S, MOST_S = 5.0, 60.0


def refuse_order(
    store: JobStore,
    job_id: str,
    reason: HoldReason | str = HoldReason.UNAUTHORIZED,
    now: float = NOW,
    *,
    words: str = "no",
    **rest: Any,
) -> HoldEffect | None:
    """Upstream refused the order of a charging job; return the effect on others."""
    refusal = Refusal(
        HoldReason(reason), words, **{"hold_s": PAUSE_S, "max_hold_s": MOST_S, "max_rest_s": MOST_S, **rest}
    )
    [effect] = store.apply_with_effects(
        [transition_of(get_job(store, job_id), State.QUEUED, reason=words, refused=refusal)], now
    )
    return effect


def rate_limit_order(store: JobStore, job_id: str, now: float = NOW, **waits: float) -> HoldEffect | None:
    """Upstream rate-limited the job's order."""
    return refuse_order(
        store, job_id, HoldReason.COOLDOWN, now, words="429", **{"max_rest_s": 300.0, "max_attempts": 8, **waits}
    )


def fail_job(store: JobStore, job: Job, code: FailureCode, now: float = NOW) -> Job:
    """Fail the job for this reason."""
    failure = serialization.failure_text(Failure(code, job.stage, "no"))
    return apply_transition(
        store, job, State.FAILED, now, reason=code, fields={"failure": failure, "settled": str(now)}
    )


def job_in_state(store: JobStore, state: State, spec: VoiceJob | None = None, now: float = NOW) -> Job:
    """Return a new job in an empty store, brought to that state on the regular path."""
    [job_id] = enqueue_jobs(store, spec or voice_with_song(), now=now)
    if state is State.QUEUED:
        return get_job(store, job_id)
    if state is State.CANCELLED:
        return apply_transition(store, get_job(store, job_id), State.CANCELLED, now)
    store.admit(now, at_most=1_000)
    if state is State.ADMITTED:
        return get_job(store, job_id)
    claim_admitted(store, job_id, now)
    if state is State.CHARGING:
        return get_job(store, job_id)
    if state is State.UNSURE:
        return apply_transition(store, get_job(store, job_id), State.UNSURE, now, reason="no answer")
    pending = accept_order(store, job_id, now)
    if state is State.PENDING:
        return pending
    if state is State.FAILED:
        return fail_job(store, pending, FailureCode.UPSTREAM_FAILED, now)
    return apply_transition(store, pending, State.SUCCEEDED, now, fields={"settled": str(now)})


CLIPS = (
    Clip("c-1", "succeeded", "First, take", "https://cdn.example/1.mp3", "https://cdn.example/1.jpg", 61.5),
    Clip("c-2", "succeeded", None, "https://cdn.example/2.mp3", None, None),
)


def job_with_song(store: JobStore, songs: tuple[Clip, ...] = CLIPS, **fields: Any) -> Job:
    """Return a job with two clips and both stages paid."""
    job = apply_transition(
        store,
        job_in_state(store, State.PENDING, voice_with_song(**fields)),
        State.ADMITTED,
        to_stage=Stage.MUSIC,
        fields={"persona_id": "p-1", "voice_name": "ana"},
    )
    claim_admitted(store, job.id)
    clips = serialization.clips_text(songs)
    return apply_transition(
        store,
        accept_order(store, job.id),
        State.SUCCEEDED,
        NOW + 60,
        fields={"clips": clips, "settled": str(NOW + 60)},
    )


# ── all keys ──────────────────────────────────────────────────────────────────────────────────────


#: How all that is in a key is read, by its type.
READ: dict[str, Callable[[Redis, str], object]] = {
    "hash": lambda redis, key: redis.hgetall(key),
    "zset": lambda redis, key: redis.zrange(key, 0, -1, withscores=True),
    "list": lambda redis, key: redis.lrange(key, 0, -1),
    "set": lambda redis, key: redis.smembers(key),
    "stream": lambda redis, key: redis.xrange(key),
    "string": lambda redis, key: redis.get(key),
}


def dump_keys(redis: Redis, prefix: str) -> dict[str, Any]:
    """Return every key with this prefix and its content."""
    keys = sorted(cast(Iterator[str], redis.scan_iter(f"{{{prefix}}}:*", count=1_000)))
    # Two round trips for all of them: the walks look at everything after each of their steps.
    with redis.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.type(key)
        kinds = [str(kind) for kind in pipe.execute()]
        for key, kind in zip(keys, kinds, strict=True):
            READ[kind](pipe, key)
        values = pipe.execute()
    return {key: dict(value) if kind == "zset" else value for key, kind, value in zip(keys, kinds, values, strict=True)}


@dataclass(frozen=True)
class IndexSnapshot:
    """The content of the indexes and counters of a prefix, actual or expected."""

    lines: dict[str, dict[str, float]]
    turns: dict[str, set[str]]
    flight: set[str]
    states: dict[str, set[str]]
    waiting: dict[str, set[str]]
    batches: dict[str, Counter[str]]
    members: dict[str, set[str]]
    batch_credits: Counter[str]
    batch_reserved: Counter[str]
    batch_queued: Counter[str]
    slots: Counter[str]
    periods: Counter[tuple[str, str]]
    unsettled: int
    credits: int
    reserved: int
    queued: int
    failures: Counter[str]


def expected_indexes(keys: dict[str, Any], prefix: str) -> IndexSnapshot:
    """Return the expected indexes and counters, from a full scan of the records."""
    records = all_records(keys, prefix)
    lines: dict[str, dict[str, float]] = {}
    states: dict[str, set[str]] = {}
    waiting: dict[str, set[str]] = {}
    batches: dict[str, Counter[str]] = {}
    members: dict[str, set[str]] = {}
    credits: Counter[str] = Counter()
    reserved: Counter[str] = Counter()
    queued: Counter[str] = Counter()
    slots: Counter[str] = Counter()
    for job_id, record in records.items():
        namespace, batch = split(record.get("batch", ""))
        states.setdefault(index_of(record["state"], namespace), set()).add(job_id)
        if record["state"] == State.QUEUED:
            ahead = SONG_SCORE_OFFSET if record["stage"] == Stage.MUSIC else 0
            line = lines.setdefault(f"{record['rank']}:{record.get('batch', '')}", {})
            line[job_id] = float(record.get("requeued_at", record["created"])) - ahead
        if record["state"] == State.WAITING:
            waiting.setdefault(record["shared_voice"], set()).add(job_id)
        if batch:
            batches.setdefault(record["batch"], Counter())[record["state"]] += 1
            members.setdefault(record["batch"], set()).add(job_id)
        slots.update(dict.fromkeys(spenders(record), record["state"] in IN_FLIGHT))
        for owner in ([record["batch"]] if batch else []) + spenders(record):
            credits[owner] += int(record.get("credits", 0))
            reserved[owner] += reserved_credits(record) + unsettled_credits(record)
            queued[owner] += queued_credits(record)
    failed = [json.loads(record["failure"]) for record in records.values() if "failure" in record]
    states = {index: members for index, members in states.items() if split_index(index) != State.QUEUED}
    spent = sum(int(record.get("credits", 0)) for record in records.values())
    return IndexSnapshot(
        lines=lines,
        turns={str(rank): {line[2:] for line in lines if line[0] == str(rank)} for rank in range(3)},
        flight={job_id for job_id, record in records.items() if record["state"] in IN_FLIGHT},
        states=states,
        waiting=waiting,
        batches=batches,
        members=members,
        batch_credits=+credits,
        batch_reserved=+reserved,
        batch_queued=+queued,
        slots=+slots,
        periods=sum((spent_periods(record) for record in records.values()), Counter()),
        unsettled=sum(map(unsettled_credits, records.values())),
        credits=spent,
        reserved=sum(map(reserved_credits, records.values())),
        queued=sum(map(queued_credits, records.values())),
        failures=Counter(failure["code"] for failure in failed),
    )


def split_index(index: str) -> str:
    """Return the state of an index of a namespace."""
    return index.partition("/")[0]


def all_records(keys: dict[str, Any], prefix: str) -> dict[str, dict[str, str]]:
    """Return all records by id."""
    root = f"{{{prefix}}}:job:"
    return {key.removeprefix(root): record for key, record in keys.items() if key.startswith(root)}


def actual_indexes(keys: dict[str, Any], prefix: str) -> IndexSnapshot:
    """Return the actual sorted sets, batch hashes and counters."""
    root = f"{{{prefix}}}:"
    counted = {
        key.removeprefix(f"{root}batch:"): Counter(record)
        for key, record in keys.items()
        if key.startswith(f"{root}batch:") and not key.endswith(":jobs") and any(int(record.get(s, 0)) for s in State)
    }
    for namespace in ("", *keys.get(f"{root}namespaces", ())):
        listed = set(keys.get(root + index_of("batches", namespace), ()))
        assert listed == {batch for batch in counted if namespace_of(batch) == namespace}
    owners = counted | {
        key.removeprefix(root): Counter(record)
        for key, record in keys.items()
        if key.startswith((f"{root}namespace:", f"{root}key:"))
    }
    counters = {name: int(value) for name, value in keys.get(f"{root}counters", {}).items()}
    states = {
        key.removeprefix(f"{root}state:"): set(members)
        for key, members in keys.items()
        if key.startswith(f"{root}state:")
    }
    failures = {name.removeprefix("failed."): value for name, value in counters.items() if name.startswith("failed.")}
    assert min(failures.values(), default=0) >= 0
    return IndexSnapshot(
        lines={key.removeprefix(f"{root}lane:"): line for key, line in keys.items() if key.startswith(f"{root}lane:")},
        turns={str(rank): set(keys.get(f"{root}lanes:{rank}", ())) for rank in range(3)},
        flight=set(keys.get(f"{root}in_flight", ())),
        states={state: members for state, members in states.items() if members},
        waiting={
            key.removeprefix(f"{root}waiting:"): set(keys[key]) for key in keys if key.startswith(f"{root}waiting:")
        },
        batches={name: +Counter({str(s): int(counts[s]) for s in State}) for name, counts in counted.items()},
        members={name: set(keys[f"{root}batch:{name}:jobs"]) for name in counted},
        batch_credits=+Counter(
            {name: int(counts["credits"]) - int(counts["purged.credits"]) for name, counts in owners.items()}
        ),
        batch_reserved=+Counter({name: int(counts["reserved"]) for name, counts in owners.items()}),
        batch_queued=+Counter({name: int(counts["queued_credits"]) for name, counts in owners.items()}),
        slots=+Counter({name: int(counts["in_flight"]) for name, counts in owners.items()}),
        periods=counted_periods({**owners, "counters": counters}),
        unsettled=counters.get("unsettled", 0) - counters.get("purged.unsettled", 0),
        credits=sum(counters.get(f"{stage}.credits", 0) for stage in (*Stage, "corrected"))
        - counters.get("purged.credits", 0),
        reserved=counters.get("reserved", 0),
        queued=int(keys.get(f"{root}backlog", {}).get("queued_credits", 0)),
        failures=+Counter(failures),
    )


def assert_consistent(redis: Redis, prefix: str) -> None:
    """Check that indexes and counters agree with the records, and that only eligible jobs have a due time."""
    keys = dump_keys(redis, prefix)
    assert actual_indexes(keys, prefix) == expected_indexes(keys, prefix)
    counters = {name: int(value) for name, value in keys.get(f"{{{prefix}}}:counters", {}).items()}
    if "corrections" not in counters:  # no repair says on which day something was spent
        days = sum(value for name, value in counters.items() if name.startswith("day."))
        assert days == sum(counters.get(f"{stage}.credits", 0) for stage in Stage)
    records = all_records(keys, prefix)
    assert_voices_have_creators(keys, prefix)
    doubted = {job_id for job_id, record in records.items() if "refused" in record}
    assert doubted == set(keys.get(f"{{{prefix}}}:refused", ()))
    assert all(records[job_id]["state"] in ("queued", "admitted", "charging") for job_id in doubted)
    resting = set(keys.get(f"{{{prefix}}}:resting", ()))
    assert all(records[job_id]["state"] == State.QUEUED and "recheck" in records[job_id] for job_id in resting)
    for index in ("pending", "failed"):
        stand = {job_id for job_id, record in records.items() if record.get("archive") == index}
        assert stand == set(keys.get(f"{{{prefix}}}:archive:{index}", ()))
    late = keys.get(f"{{{prefix}}}:late_results", {})
    assert {records[job_id]["state"] for job_id in late} <= MAY_HAVE_LATE_RESULT
    expiry = set(keys.get(f"{{{prefix}}}:start_by", ()))
    bounded = {job_id for job_id, record in records.items() if "start_within_s" in json.loads(record["spec"])}
    moves = {job_id: keys.get(f"{{{prefix}}}:timeline:{job_id}", ()) for job_id in records}
    ended = {job_id for job_id in records if SETTLED & {json.loads(line)["state"] for line in moves[job_id]}}
    begun = {job_id for job_id, record in records.items() if "credits" in record or record["state"] == State.PENDING}
    over = {job_id for job_id in records if records[job_id]["state"] in SETTLED}
    assert bounded - ended - begun <= expiry <= bounded - over


def assert_voices_have_creators(keys: dict[str, Any], prefix: str) -> None:
    """Check that each awaited voice has a creator that is active or charged, or is decided."""
    root = f"{{{prefix}}}:"
    records = all_records(keys, prefix)
    for key in keys:
        voice = key.removeprefix(f"{root}waiting:")
        if voice == key or voice in keys.get(f"{root}voices:decided", ()):
            continue
        record = keys[f"{root}voice:{voice}"]
        assert "persona_id" not in record
        creator = records[record["creator"]]
        assert creator["stage"] == Stage.VOICE
        paid = creator["state"] == State.CANCELLED and record["creator"] in keys.get(f"{root}late_results", {})
        assert paid or State(creator["state"]) not in SETTLED | {State.WAITING}


def ids(jobs: Iterable[Job | None]) -> list[str]:
    """Return the ids of these jobs."""
    return [job.id for job in jobs if job is not None]


def report_order(job: Job, task_id: str = "t") -> Transition:
    """Return the transition of a job whose last order upstream reports."""
    move = transitions.continue_with_order(
        job, ChargedOrder(job.id, job.stage, job.attempt, task_id), NOW, reason="named"
    )
    assert move is not None
    return move
