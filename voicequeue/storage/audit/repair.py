"""The repair of what an audit found, while workers run.

Records stay unchanged: indexes and counters are made to follow them. A job that has changed since the audit is left
alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from redis import Redis

from voicequeue.storage import scripts
from voicequeue.storage.audit.expected_state import pages
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
    VoiceWithoutCreator,
)

F = TypeVar("F", bound=Finding)

#: The number of findings that one script repairs, in a millisecond or two.
_PAGE = 200


def repair(redis: Redis, prefix: str, findings: Sequence[Finding], now: float) -> list[Finding]:
    """Repair these findings and return those that were repaired. `now` (Unix seconds) is the due time of restored
    slots."""
    root = f"{{{prefix}}}:"
    repaired: list[Finding] = []
    for mismatches in _pages_of(IndexMismatch, findings):
        arguments = _flat((item.job_id, item.version, item.index, int(item.belongs)) for item in mismatches)
        repaired += _repaired(mismatches, scripts.run_change(redis, "repair_indexes", root, now, *arguments))
    for namespaces in _pages_of(MissingNamespace, findings):
        codes = scripts.run_change(redis, "repair_namespaces", root, now, *(item.namespace for item in namespaces))
        repaired += _repaired(namespaces, codes)
    for owners in _pages_of(MissingOwner, findings):
        codes = scripts.run_change(redis, "repair_owners", root, now, *(item.owner for item in owners))
        repaired += _repaired(owners, codes)
    # After the members of batches, on which the list of batches depends.
    for batches in _pages_of(BatchListMismatch, findings):
        codes = scripts.run_change(redis, "repair_batch_list", root, *(item.batch for item in batches))
        repaired += _repaired(batches, codes)
    for stopped in _pages_of(StoppedListMismatch, findings):
        codes = scripts.run_change(redis, "repair_stopped_batches", root, now, *(item.batch for item in stopped))
        repaired += _repaired(stopped, codes)
    for budgets in _pages_of(BudgetListMismatch, findings):
        codes = scripts.run_change(redis, "repair_budget_list", root, *(item.owner for item in budgets))
        repaired += _repaired(budgets, codes)
    for turns in _pages_of(LaneTurnMismatch, findings):
        codes = scripts.run_change(redis, "repair_lanes", root, *_flat((item.rank, item.batch) for item in turns))
        repaired += _repaired(turns, codes)
    for voices in _pages_of(VoiceWithoutCreator, findings, 1):  # many jobs may wait for each
        codes = scripts.run_change(
            redis, "check_voices", root, now, 1, *_flat((item.voice, item.job_id) for item in voices)
        )
        repaired += _repaired(voices, codes)
    for strays in _pages_of(UndeliverableCallback, findings):
        problems = scripts.run_change(redis, "check_callbacks", root, now, 1, *(item.callback_id for item in strays))
        repaired += _repaired(strays, [1 if problem else 0 for problem in problems])
    for summaries in _pages_of(SummaryMismatch, findings):
        codes = scripts.run_change(
            redis, "repair_summaries", root, *_flat((item.index, item.entry) for item in summaries)
        )
        repaired += _repaired(summaries, codes)
    counters = [item for item in findings if isinstance(item, CounterMismatch)]
    corrected = _corrected(redis, root, counters)
    if len(corrected) == len(counters) and not any(isinstance(item, NotComparable) for item in findings):
        scripts.run(redis, "complete_counting", root, now)
    return repaired + corrected


def _pages_of(kind: type[F], findings: Sequence[Finding], size: int = _PAGE) -> Iterator[list[F]]:
    return pages((item for item in findings if isinstance(item, kind)), size)


def _corrected(redis: Redis, root: str, mismatches: Sequence[CounterMismatch]) -> list[Finding]:
    """Correct counters and return what was corrected; stops if another repair runs, which would correct them twice."""
    corrected: list[Finding] = []
    corrections = int(mismatches[0].corrections) if mismatches else 0
    of_one_time = (mismatch for mismatch in mismatches if mismatch.corrections == mismatches[0].corrections)
    for number, page in enumerate(pages(of_one_time, _PAGE), start=corrections):
        if not scripts.run_change(redis, "correct_counters", root, str(number), *_flat(map(_amount, page))):
            break
        corrected += page
    return corrected


def _amount(mismatch: CounterMismatch) -> tuple[str, str, int]:
    # The records do not say which stage a credit of the sum belongs to.
    is_sum = (mismatch.counters, mismatch.field) == ("counters", "credits")
    field = "corrected.credits" if is_sum else mismatch.field
    return mismatch.counters, field, mismatch.expected - mismatch.actual


def _flat(rows: Iterable[tuple[Any, ...]]) -> list[Any]:
    return [value for row in rows for value in row]


def _repaired(findings: Sequence[Finding], codes: Sequence[int]) -> list[Finding]:
    return [finding for finding, code in zip(findings, codes, strict=True) if code]
