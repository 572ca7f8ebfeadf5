"""However a caller puts orders in: one call to Redis holds a bounded number of jobs and of characters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.store.conftest import Command
from voicequeue import AsyncVoiceQueue, VoiceJob, VoiceQueue
from voicequeue.domain.portions import CHUNK, TEXT_MAX
from voicequeue.storage.job_store import Store
from voicequeue.storage.preview import Preview

ORDERS = [
    {"audio_url": f"https://a.example/{number}.wav", "key": str(number), "metadata": {"a": "b" * 4_000}, "songs": songs}
    for number, songs in enumerate([[{"prompt": "la"}] * 100, [{"prompt": "p" * 4_000}] * 20, [{"prompt": "lo"}]] * 4)
]
JOBS = 4 * 121


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[VoiceJob]]:
    """The jobs of each call."""
    calls: list[Sequence[VoiceJob]] = []
    enqueueing, read = Store.enqueueing, Preview._read

    def watched(self: Store, jobs: Sequence[tuple[str, VoiceJob]], now: float, **more: Any) -> Any:
        calls.append([job for _, job in jobs])
        return enqueueing(self, jobs, now, **more)

    def foreseeing(self: Preview, specs: Sequence[VoiceJob]) -> Any:
        calls.append(specs)
        return read(self, specs)

    monkeypatch.setattr(Store, "enqueueing", watched)
    monkeypatch.setattr(Preview, "_read", foreseeing)
    return calls


def check(at_once: list[Sequence[VoiceJob]]) -> None:
    """None has more than it may, and they have all."""
    assert sum(map(len, at_once)) == JOBS
    for jobs in at_once:
        assert len(jobs) <= CHUNK
        assert sum(len(job.content()) for job in jobs) <= TEXT_MAX
    at_once.clear()


def test_the_library_counts_jobs_and_characters_not_orders(
    queue: VoiceQueue, valkey_url: str, prefix: str, at_once: list[Sequence[VoiceJob]]
) -> None:
    """In each of its ways: many, some, foreseen, and from an event loop."""

    async def later() -> AsyncIterator[dict[str, Any]]:
        for order in ORDERS:
            yield order

    async def many() -> None:
        async with AsyncVoiceQueue(valkey_url, prefix=prefix) as jobs:
            assert (await jobs.enqueue_many(later())).known == JOBS

    assert sum(each.is_new for each in queue.preview(ORDERS)) == len(ORDERS)
    check(at_once)
    assert queue.enqueue_many(ORDERS).new == JOBS
    check(at_once)
    assert [len(entry.job_ids) for entry in queue.enqueue_at_once(ORDERS)] == [100, 20, 1] * 4
    check(at_once)
    asyncio.run(many())
    check(at_once)


def test_a_file_is_read_in_portions_of_jobs_and_characters(
    command: Command,
    queue: VoiceQueue,
    at_home: Path,
    at_once: list[Sequence[VoiceJob]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of rows that are not taken as well: the text of each is kept until it is written."""
    file = at_home / "rows.jsonl"
    wrong = json.dumps({"audio_url": "x", "name": "n" * 300_000})
    file.write_text("\n".join([*map(json.dumps, ORDERS), *[wrong] * 20]), encoding="utf-8")
    parts: list[int] = []

    def watched(self: VoiceQueue, jobs: Any, **_: Any) -> Any:
        parts.append(1)
        return many(self, jobs)

    many = VoiceQueue.enqueue_many
    monkeypatch.setattr(VoiceQueue, "enqueue_many", watched)

    assert command("ingest", str(file), "--batch", "b").code == 1

    assert queue.batch("b").total == JOBS
    check(at_once)
    assert len(parts) >= 6
