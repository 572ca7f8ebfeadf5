"""Each call to Redis contains a bounded number of jobs and characters, for every way of enqueueing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.store.conftest import Command
from tests.support.jobs import results_of
from voicequeue import AsyncVoiceQueue, VoiceJob, VoiceQueue
from voicequeue.domain.portions import PORTION_JOBS_MAX, PORTION_TEXT_MAX
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.preview import EnqueuePreviewer

ORDERS = [
    {"audio_url": f"https://a.example/{number}.wav", "key": str(number), "metadata": {"a": "b" * 4_000}, "songs": songs}
    for number, songs in enumerate([[{"prompt": "la"}] * 100, [{"prompt": "p" * 4_000}] * 20, [{"prompt": "lo"}]] * 4)
]
JOBS = 4 * 121


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[VoiceJob]]:
    """Record the number of jobs of each call."""
    calls: list[Sequence[VoiceJob]] = []
    prepare, read = JobStore.prepare_enqueue, EnqueuePreviewer._read

    def watched(self: JobStore, jobs: Sequence[tuple[str, VoiceJob]], now: float, **more: Any) -> Any:
        calls.append([job for _, job in jobs])
        return prepare(self, jobs, now, **more)

    def foreseeing(self: EnqueuePreviewer, specs: Sequence[VoiceJob]) -> Any:
        calls.append(specs)
        return read(self, specs)

    monkeypatch.setattr(JobStore, "prepare_enqueue", watched)
    monkeypatch.setattr(EnqueuePreviewer, "_read", foreseeing)
    return calls


def check(sizes: list[Sequence[VoiceJob]]) -> None:
    """Check that no call exceeds its bounds and that together they contain every job."""
    assert sum(map(len, sizes)) == JOBS
    for jobs in sizes:
        assert len(jobs) <= PORTION_JOBS_MAX
        assert sum(len(job.canonical_content()) for job in jobs) <= PORTION_TEXT_MAX
    sizes.clear()


def test_the_library_bounds_jobs_and_characters(
    queue: VoiceQueue, valkey_url: str, prefix: str, sizes: list[Sequence[VoiceJob]]
) -> None:
    """For every method: many, batches, previews, and from an event loop."""

    async def later() -> AsyncIterator[dict[str, Any]]:
        for order in ORDERS:
            yield order

    async def many() -> None:
        async with AsyncVoiceQueue(valkey_url, prefix=prefix) as jobs:
            assert (await jobs.enqueue_many(later())).existing == JOBS

    assert sum(result.is_new for result in queue.preview(ORDERS)) == len(ORDERS)
    check(sizes)
    assert queue.enqueue_many(ORDERS).new == JOBS
    check(sizes)
    assert [len(entry.job_ids) for entry in results_of(queue, ORDERS)] == [100, 20, 1] * 4
    check(sizes)
    asyncio.run(many())
    check(sizes)


def test_a_file_is_read_in_portions_of_jobs_and_characters(
    command: Command,
    queue: VoiceQueue,
    working_folder: Path,
    sizes: list[Sequence[VoiceJob]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rejected rows count too: their text is held until it is written."""
    file = working_folder / "rows.jsonl"
    wrong = json.dumps({"audio_url": "x", "name": "n" * 300_000})
    file.write_text("\n".join([*map(json.dumps, ORDERS), *[wrong] * 20]), encoding="utf-8")
    parts: list[int] = []

    def watched(self: VoiceQueue, jobs: Any, **options: Any) -> Any:
        parts.append(1)
        return enqueue_many(self, jobs, **options)

    enqueue_many = VoiceQueue.enqueue_many
    monkeypatch.setattr(VoiceQueue, "enqueue_many", watched)

    assert command("ingest", str(file), "--batch", "b").code == 1

    assert queue.batch("b").total == JOBS
    check(sizes)
    assert len(parts) >= 6
