"""Previews of rows: the result of enqueueing each, and the credits that it costs, without changing anything."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from voicequeue.cli.ingest.intake import Item, rejection_kind
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.spec import VoiceJob
from voicequeue.errors import VoiceQueueError
from voicequeue.ingest.checkpoint import IngestCounts


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of enqueueing a row: its new and existing jobs, their cost, and the error if it is rejected."""

    item: Item
    new: int
    existing: int
    credits: int
    error: VoiceQueueError | None

    def add_to(self, counts: IngestCounts) -> None:
        """Count the row."""
        counts.rows += 1
        counts.new += self.new
        counts.existing += self.existing
        counts.credits += self.credits
        if self.error is not None:
            counts.reject(rejection_kind(self.error))


def preview(items: Iterable[Item], jobs: VoiceQueue) -> Iterator[Outcome]:
    """Yield the outcome of each row. Earlier rows count for later ones."""
    read = deque[tuple[Item, int]]()

    def parts() -> Iterator[VoiceJob | Mapping[str, Any]]:
        for item in items:
            # An invalid job takes the place of a row without one, so that the results stay in order.
            expanded: Sequence[VoiceJob | Mapping[str, Any]] = item.job.expand() if item.job else [{}]
            read.append((item, len(expanded)))
            yield from expanded

    previews = jobs.preview(parts())
    for first in previews:
        item, count = read.popleft()
        results = [first, *islice(previews, count - 1)]
        yield Outcome(
            item,
            new=sum(result.is_new for result in results),
            existing=sum(not result.is_new and result.error is None for result in results),
            credits=sum(result.credits for result in results),
            error=item.error or next((result.error for result in results if result.error), None),
        )
