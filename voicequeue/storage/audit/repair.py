"""Mends what the audit found, while workers run and jobs move.

Records stay as they are: indexes and counters are made to follow them. What has moved on since it was
found is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from redis import Redis

from voicequeue.storage import scripts
from voicequeue.storage.audit.audit import Drift, Finding, Misplaced, Stray, Turn, Unlisted, Unmade
from voicequeue.storage.audit.expected_state import pages

#: How much one script mends: a millisecond or two.
_PAGE = 200


def repair(redis: Redis, prefix: str, findings: Sequence[Finding], now: float) -> list[Finding]:
    """Mend these findings; gives those that were. `now` in Unix seconds is when missing slots are due."""
    root = f"{{{prefix}}}:"
    mended: list[Finding] = []
    for page in pages((each for each in findings if isinstance(each, Misplaced)), _PAGE):
        mended += _done(page, scripts.run(redis, "repair_indexes", root, now, *_flat(map(_place, page))))
    # By their members, which are right now.
    for batches in pages((each for each in findings if isinstance(each, Unlisted)), _PAGE):
        mended += _done(batches, scripts.run(redis, "repair_batch_list", root, *(each.batch for each in batches)))
    for turns in pages((each for each in findings if isinstance(each, Turn)), _PAGE):
        mended += _done(
            turns, scripts.run(redis, "repair_lanes", root, *_flat((each.rank, each.batch) for each in turns))
        )
    for voices in pages((each for each in findings if isinstance(each, Unmade)), 1):  # many may wait for each
        mended += _done(
            voices,
            scripts.run(redis, "check_voices", root, now, 1, *_flat((each.voice, each.job_id) for each in voices)),
        )
    for strays in pages((each for each in findings if isinstance(each, Stray)), _PAGE):
        wrong = scripts.run(redis, "check_callbacks", root, now, 1, *(each.callback_id for each in strays))
        mended += _done(strays, [1 if what else 0 for what in wrong])
    return mended + _corrected(redis, root, [each for each in findings if isinstance(each, Drift)])


def _place(found: Misplaced) -> tuple[str, str, str, int]:
    return found.job_id, found.version, found.index, int(found.belongs)


def _corrected(redis: Redis, root: str, drifts: Sequence[Drift]) -> list[Finding]:
    """Those that were corrected: only while nobody else does the same, or it would count twice."""
    corrected: list[Finding] = []
    corrections = int(drifts[0].corrections) if drifts else 0
    of_one_time = (each for each in drifts if each.corrections == drifts[0].corrections)
    for number, page in enumerate(pages(of_one_time, _PAGE), start=corrections):
        if not scripts.run(redis, "correct_counters", root, str(number), *_flat(map(_amount, page))):
            break
        corrected += page
    return corrected


def _amount(drift: Drift) -> tuple[str, str, int]:
    # Which stage a credit of the sum belongs to, no record tells.
    is_sum = (drift.counters, drift.field) == ("counters", "credits")
    field = "corrected.credits" if is_sum else drift.field
    return drift.counters, field, drift.expected - drift.found


def _flat(rows: Iterable[tuple[Any, ...]]) -> list[Any]:
    return [part for row in rows for part in row]


def _done(findings: Sequence[Finding], codes: Sequence[int]) -> list[Finding]:
    return [each for each, code in zip(findings, codes, strict=True) if code]
