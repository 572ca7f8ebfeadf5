"""The audit: compare the indexes and counters in Redis with the job records, which are authoritative.

It only reads, page by page, while workers run. A job that merely changes state during the audit is no finding: a job
counts as mismatched if one transaction reads a record and an index that disagree, counters as wrong if they differ from
the sum over all records at the same moment (see `voicequeue.storage.audit.expected_state`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import starmap
from typing import cast

from redis import Redis

from voicequeue.domain.namespaces import index_of, namespace_of
from voicequeue.domain.spec import Priority
from voicequeue.domain.states import State
from voicequeue.storage import scripts
from voicequeue.storage.audit.expected_state import (
    IS_COUNTED,
    IS_INDEX,
    ExpectedState,
    allowed_indexes,
    callback_ids,
    is_complete,
    pages,
    required_indexes,
)
from voicequeue.storage.audit.findings import (
    BatchListMismatch,
    BudgetListMismatch,
    CounterMismatch,
    Finding,
    IndexMismatch,
    LaneTurnMismatch,
    MissingNamespace,
    MissingOwner,
    NotComparable,
    StoppedListMismatch,
    SummaryMismatch,
    UndeliverableCallback,
    UnknownState,
    VoiceWithoutCreator,
)
from voicequeue.storage.audit.record import FIELDS, record_of
from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.storage.summaries import Summaries

#: The number of attempts to compare counters of batches that keep getting new jobs.
ATTEMPTS = 10


def audit(redis: Redis, prefix: str) -> list[Finding]:
    """Return all findings."""
    root = f"{{{prefix}}}:"
    expected_state = ExpectedState(redis, root)
    expected_state.read()
    names = expected_state.names()
    findings: list[Finding] = [
        UnknownState(job_id, record.state) for job_id, record in expected_state.records.items() if not record.is_known
    ]
    for index, job_ids in _suspects(expected_state, names):
        for page in pages(sorted(job_ids)):
            findings += _index_mismatches(redis, root, index, page)
    findings += _missing_namespaces(expected_state)
    findings += map(MissingOwner, sorted(expected_state.owners() - expected_state.members("owners")))
    findings += _batch_list_mismatches(redis, root, expected_state)
    findings += _stopped_list_mismatches(redis, root, expected_state)
    findings += _budget_list_mismatches(redis, root, names)
    incomplete = {item.index for item in findings if isinstance(item, IndexMismatch) and item.belongs}
    findings += _lane_turn_mismatches(redis, root, expected_state, incomplete)
    findings += _voices_without_creator(redis, root, expected_state)
    findings += _undeliverable_callbacks(redis, root)
    findings += starmap(SummaryMismatch, Summaries(Keyspace(redis, prefix)).wrong())
    return findings + list(_counter_mismatches(expected_state, names))


# ── indexes ───────────────────────────────────────────────────────────────────────────────────────


def _suspects(expected_state: ExpectedState, names: set[str]) -> Iterator[tuple[str, set[str]]]:
    """Yield by index the ids that are there and do not belong there, or vice versa; some may only have changed."""
    expected: defaultdict[str, set[str]] = defaultdict(set)
    for job_id, record in expected_state.records.items():
        for index in required_indexes(record):
            expected[index].add(job_id)
    for index in sorted(set(filter(IS_INDEX, names)) | expected.keys()):
        yield index, expected.pop(index, set()) ^ expected_state.members(index)


def _index_mismatches(redis: Redis, root: str, index: str, job_ids: list[str]) -> Iterator[IndexMismatch]:
    """Yield the suspects whose record and index disagree at one moment."""
    with redis.pipeline(transaction=True) as pipe:
        for job_id in job_ids:
            pipe.hmget(f"{root}job:{job_id}", "version", *FIELDS)
            pipe.zscore(root + index, job_id)
        replies = iter(pipe.execute())
    for job_id, ((version, *values), score) in zip(job_ids, zip(replies, replies, strict=True), strict=True):
        record = record_of(values)
        if record and not record.is_known:
            continue
        belongs = record is not None and index in required_indexes(record)
        is_allowed = belongs or (record is not None and index in allowed_indexes(record))
        if (belongs and score is None) or (score is not None and not is_allowed):
            yield IndexMismatch(index, job_id, belongs, version or "")


def _missing_namespaces(expected_state: ExpectedState) -> Iterator[MissingNamespace]:
    """Yield namespaces that have jobs and are not listed; none is ever removed from the list."""
    missing = expected_state.namespaces() - {""} - expected_state.members("namespaces")
    yield from map(MissingNamespace, sorted(missing))


def _batch_list_mismatches(redis: Redis, root: str, expected_state: ExpectedState) -> Iterator[BatchListMismatch]:
    """Yield batches that are listed without jobs, or have jobs and are not listed."""
    namespaces = {"", *expected_state.members("namespaces"), *expected_state.namespaces()}
    lists = {namespace: index_of("batches", namespace) for namespace in namespaces}
    listed_before = set().union(*map(expected_state.members, lists.values()))
    expected_state.follow_changes([])  # jobs may have been purged since they were read, and batches with them
    having_jobs = expected_state.batches()
    for batch in sorted(having_jobs ^ listed_before):
        is_listed = redis.zscore(root + index_of("batches", namespace_of(batch)), batch) is not None
        if batch in having_jobs:
            if not is_listed:
                yield BatchListMismatch(batch, belongs=True)
        elif is_listed and not expected_state.has_jobs(batch):
            yield BatchListMismatch(batch, belongs=False)


def _stopped_list_mismatches(redis: Redis, root: str, expected_state: ExpectedState) -> Iterator[StoppedListMismatch]:
    """Yield batches that have stopped themselves and are not listed, or vice versa; each is checked at one moment."""
    having_jobs = expected_state.batches()
    for page in pages(sorted(having_jobs | expected_state.members("batches:stopped"))):
        with redis.pipeline(transaction=True) as pipe:
            for batch in page:
                pipe.hexists(f"{root}batch:{batch}", "stopped")
                pipe.zscore(f"{root}batches:stopped", batch)
            replies = iter(pipe.execute())
        for batch, (is_stopped, listed_at) in zip(page, zip(replies, replies, strict=True), strict=True):
            if is_stopped != (listed_at is not None):
                yield StoppedListMismatch(batch, belongs=is_stopped)


def _budget_list_mismatches(redis: Redis, root: str, names: set[str]) -> Iterator[BudgetListMismatch]:
    """Yield owners that have a budget and are not listed, or vice versa; each is checked at one moment."""
    having_budget = {name.removeprefix("budget:") for name in names if name.startswith("budget:")}
    listed = cast(set[str], redis.smembers(f"{root}budgets"))
    for owner in sorted(having_budget ^ listed):
        with redis.pipeline(transaction=True) as pipe:
            pipe.exists(f"{root}budget:{owner}")
            pipe.sismember(f"{root}budgets", owner)
            has_budget, is_listed = map(bool, pipe.execute())
        if has_budget != is_listed:
            yield BudgetListMismatch(owner, has_budget)


def _lane_turn_mismatches(
    redis: Redis, root: str, expected_state: ExpectedState, incomplete: set[str]
) -> Iterator[LaneTurnMismatch]:
    """Yield batches with a turn and no lane, or vice versa; `incomplete` are indexes in which jobs are missing."""
    queued = {(record.rank, record.batch) for record in expected_state.records.values() if record.state == State.QUEUED}
    for rank in range(len(Priority)):
        queued_batches = {batch for job_rank, batch in queued if job_rank == str(rank)}
        for batch in sorted(queued_batches ^ expected_state.members(f"lanes:{rank}")):
            with redis.pipeline(transaction=True) as pipe:
                pipe.exists(f"{root}lane:{rank}:{batch}")
                pipe.zscore(f"{root}lanes:{rank}", batch)
                lane, turn = pipe.execute()
            belongs = bool(lane) or f"lane:{rank}:{batch}" in incomplete
            if belongs != (turn is not None):
                yield LaneTurnMismatch(rank, batch, belongs)


def _voices_without_creator(redis: Redis, root: str, expected_state: ExpectedState) -> Iterator[VoiceWithoutCreator]:
    """Yield voices that no job creates; each is checked at one moment."""
    waiting = {
        record.shared_voice: job_id
        for job_id, record in expected_state.records.items()
        if record.state == State.WAITING
    }
    for page in pages(sorted(waiting.items())):
        problems = scripts.run(redis, "check_voices", root, 0, 0, *(part for pair in page for part in pair))
        yield from (VoiceWithoutCreator(*pair) for pair, is_missing in zip(page, problems, strict=True) if is_missing)


def _undeliverable_callbacks(redis: Redis, root: str) -> Iterator[UndeliverableCallback]:
    """Yield callbacks that would never be delivered; each is checked at one moment."""
    for page in pages(sorted(callback_ids(redis, root)), 200):
        problems = scripts.run(redis, "check_callbacks", root, 0, 0, *page)
        yield from (
            UndeliverableCallback(callback_id, problem)
            for callback_id, problem in zip(page, problems, strict=True)
            if problem
        )


# ── counters ──────────────────────────────────────────────────────────────────────────────────────


def _counter_mismatches(
    expected_state: ExpectedState, names: Iterable[str]
) -> Iterator[CounterMismatch | NotComparable]:
    undecided = set(filter(IS_COUNTED, names)) | expected_state.sums.keys()
    for _ in range(ATTEMPTS):
        expected_state.read_new()
        for page in pages(sorted(undecided), 200):
            for counters, amounts in expected_state.follow_changes(page).items():
                undecided.discard(counters)
                yield from _mismatches_of(expected_state, counters, amounts)
    yield from (NotComparable(counters) for counters in sorted(undecided))


def _mismatches_of(expected_state: ExpectedState, counters: str, amounts: dict[str, int]) -> Iterator[CounterMismatch]:
    expected = expected_state.sums[counters]
    for field in sorted(amounts.keys() | expected.keys()):
        if not is_complete(field, expected_state.days_from):
            continue
        if amounts.get(field, 0) != expected[field]:
            yield CounterMismatch(counters, field, amounts.get(field, 0), expected[field], expected_state.corrections)
