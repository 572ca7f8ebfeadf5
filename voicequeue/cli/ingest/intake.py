"""Rows of a file as jobs: parsed and checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.portions import Weight, split_into_portions, weight
from voicequeue.domain.spec import VoiceJob
from voicequeue.errors import (
    BudgetExceededError,
    ErasedError,
    InvalidAudioError,
    InvalidJobError,
    KeyConflictError,
    VoiceQueueError,
    without_traceback,
)
from voicequeue.ingest.audio import Audio
from voicequeue.ingest.preflight import Preflight
from voicequeue.ingest.row import Position, Row
from voicequeue.ingest.row_reader import RowReader

#: Rows between two checkpoints of a run with --preflight; fewer than without, because fetching again is expensive.
PREFLIGHT_CHUNK = 100


#: Names under which rejected rows are counted; all others are invalid.
_KINDS: dict[type[VoiceQueueError], str] = {
    KeyConflictError: "key_conflict",
    BudgetExceededError: "budget_exceeded",
    ErasedError: "erased",
}


def rejection_kind(error: VoiceQueueError) -> str:
    """Return the name under which a rejected row is counted."""
    if isinstance(error, InvalidAudioError):
        return error.kind
    return next((name for kind, name in _KINDS.items() if isinstance(error, kind)), "invalid_row")


class ItemWarning(NamedTuple):
    """A doubt about a row that does not reject it: the name under which it is counted, and a sentence."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Item:
    """A row with its job, or the error why it has none.

    `end` is the place after the row. `is_known` is set by the preflight.
    """

    row: Row
    end: Position
    job: VoiceJob | None = None
    error: VoiceQueueError | None = None
    is_known: bool = False
    warnings: tuple[ItemWarning, ...] = ()

    @property
    def audio_url(self) -> str | None:
        """The recording to check; None if the job is known, or there is none."""
        return self.job.audio_url if self.job and not self.is_known else None

    @property
    def weight(self) -> Weight:
        """The size by which items are grouped. The row counts too: it is kept until its job is enqueued."""
        jobs, text = weight(self.job) if self.job else Weight(1, 0)
        return Weight(jobs, text + self.row.length)

    def checked(self, result: Audio | InvalidAudioError | None) -> Item:
        """Return the item with the result of the check of its recording."""
        if self.job is None or result is None:
            return self
        if isinstance(result, InvalidAudioError):
            return replace(self, job=None, error=result)
        if self.job.audio_sha256 not in (None, result.sha256):
            error = InvalidAudioError("other_content", f"its SHA-256 is {result.sha256}, not that of audio_sha256")
            return replace(self, job=None, error=error)
        return replace(self, job=self.job.copy_unchecked(audio_sha256=result.sha256))


def read_items(rows: RowReader, batch: str, start_within_s: float | None) -> Iterator[Item]:
    """Yield every row with its job or its error."""
    for row in rows:
        end = rows.position
        try:
            yield Item(row, end, row.to_job(batch, start_within_s=start_within_s))
        except InvalidJobError as error:
            yield Item(row, end, error=without_traceback(error))


def check_recordings(items: Iterator[Item], jobs: VoiceQueue, preflight: Preflight) -> Iterator[Item]:
    """Yield the items after their recordings were checked, except those of known jobs."""
    for item, result in preflight.check_all(_with_known(items, jobs), lambda item: item.audio_url):
        yield item.checked(result)


def _with_known(items: Iterator[Item], jobs: VoiceQueue) -> Iterator[Item]:
    for chunk in split_into_portions(items, item_weight, jobs=PREFLIGHT_CHUNK):
        previews = jobs.preview([item.job for item in chunk if item.job])
        for item in chunk:
            preview = next(previews) if item.job else None
            yield item if preview is None else replace(item, is_known=not preview.is_new)


def item_weight(item: Item) -> Weight:
    """Return the weight of an item, by which items are grouped into chunks."""
    return item.weight
