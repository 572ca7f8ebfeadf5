"""The dispatcher admits jobs and hands them out in chunks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from simulator.process import Simulator
from tests.integration.processes.worker_bench import SONG, WorkerBench, enqueue, worker_bench
from voicequeue import State, VoiceJob, VoiceQueue
from voicequeue.storage.heartbeats import HEARTBEAT_TIMEOUT_S
from voicequeue.storage.job_store import JobStore
from workers.dispatcher import PROCESSES


@pytest.fixture
def bench(store: JobStore, simulator: Simulator) -> Iterator[WorkerBench]:
    """Return a worker with ten slots and chunks of four jobs."""
    with worker_bench(store, simulator) as bench:
        yield bench


# ── admission ─────────────────────────────────────────────────────────────────────────────────────


def test_admission_fills_the_slots_and_hands_out_chunks(bench: WorkerBench, queue: VoiceQueue) -> None:
    """Ten slots are filled in order, in chunks of at most four; the rest stays queued."""
    ids = enqueue(queue, 12)

    bench.dispatcher.admit()
    bench.dispatcher.admit()

    assert bench.messages == [("voice.submit", ids[0:4]), ("voice.submit", ids[4:8]), ("voice.submit", ids[8:10])]
    assert queue.status().states[State.QUEUED] == 2


def test_jobs_that_need_no_voice_are_handed_out_as_songs(bench: WorkerBench, queue: VoiceQueue) -> None:
    """Voices and songs never share a message."""
    voice = queue.enqueue(VoiceJob(audio_url="https://a.example/1.wav"))
    song = queue.enqueue(VoiceJob(persona_id="p1", song=SONG))

    bench.dispatcher.admit()

    assert sorted(bench.messages) == [("music.submit", [song.id]), ("voice.submit", [voice.id])]


def test_admission_fills_all_slots_even_if_one_script_does_not(
    bench: WorkerBench, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dispatcher runs the script again; nothing else would wake it for the remaining slots."""
    monkeypatch.setattr("workers.dispatcher.ADMIT_MAX", 3)
    enqueue(queue, 12)

    bench.dispatcher.admit()

    assert sum(len(job_ids) for _, job_ids in bench.messages) == 10
    assert queue.status().states[State.QUEUED] == 2


def test_short_credits_are_logged_once_and_so_is_their_end(
    bench: WorkerBench, queue: VoiceQueue, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning for all jobs, rounds and workers."""
    caplog.set_level("INFO", "voicequeue.dispatcher")
    ids, other = enqueue(queue, 5), bench.another("w2")
    bench.store.flow_control.record_balance(2 * 19, spent_before=0, requested_at=bench.clock.now, now=bench.clock.now)

    for _ in range(3):
        bench.dispatcher.admit()
        other.admit()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "not enough credits" in caplog.text

    bench.store.flow_control.record_balance(900, spent_before=0, requested_at=bench.clock.now, now=bench.clock.now)
    for _ in range(3):
        bench.dispatcher.admit()
        other.admit()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert sorted(job_id for _, chunk in bench.messages for job_id in chunk) == sorted(ids)


# ── chunks ────────────────────────────────────────────────────────────────────────────────────────


def test_a_few_jobs_are_divided_among_the_processes_of_all_workers(bench: WorkerBench, queue: VoiceQueue) -> None:
    """Workers without a recent heartbeat are not counted; a full message would leave processes without work."""
    old, other = (
        bench.another("w0", facts=lambda _: {PROCESSES: 8}),
        bench.another("w2", facts=lambda _: {PROCESSES: 2}),
    )
    dispatcher = bench.another("w3", facts=lambda _: {PROCESSES: 3})
    old.send_heartbeat()
    bench.clock.now += HEARTBEAT_TIMEOUT_S + 1
    other.send_heartbeat()
    dispatcher.send_heartbeat()
    dispatcher.count_processes()
    ids = enqueue(queue, 9)

    dispatcher.admit()

    assert [chunk for _, chunk in bench.messages] == [ids[0:2], ids[2:4], ids[4:6], ids[6:8], ids[8:]]


def test_jobs_that_one_process_runs_concurrently_share_a_message(bench: WorkerBench, queue: VoiceQueue) -> None:
    """However many other processes are idle."""
    dispatcher = bench.another("w2", facts=lambda _: {PROCESSES: 20}, at_once=3)
    dispatcher.send_heartbeat()
    dispatcher.count_processes()
    ids = enqueue(queue, 7)

    dispatcher.admit()

    assert [chunk for _, chunk in bench.messages] == [ids[0:3], ids[3:6], ids[6:]]


# ── waiting ───────────────────────────────────────────────────────────────────────────────────────


def test_a_job_that_arrives_while_the_dispatcher_waits_is_admitted_at_once(
    bench: WorkerBench, queue: VoiceQueue
) -> None:
    """A single job does not wait for the end of the interval."""
    with ThreadPoolExecutor(1) as thread:
        started = time.monotonic()
        waiting = thread.submit(bench.dispatcher.wait_and_admit, 4.0)
        [job_id] = enqueue(queue, 1)
        waiting.result()

    assert time.monotonic() - started < 3
    assert bench.messages == [("voice.submit", [job_id])]


def test_the_dispatcher_admits_after_its_interval_without_a_wake_up(bench: WorkerBench, queue: VoiceQueue) -> None:
    """The end of a cooldown wakes no worker."""
    [job_id] = enqueue(queue, 1)
    bench.store.flow_control.add_hold("cooldown", "429", bench.clock.now, bench.clock.now + 5)
    bench.dispatcher.wait_and_admit(0.01)
    assert bench.messages == []

    bench.clock.now += 5
    bench.dispatcher.wait_and_admit(0.01)

    assert bench.messages == [("voice.submit", [job_id])]


def test_a_slot_that_becomes_free_is_filled_in_the_next_round(bench: WorkerBench, queue: VoiceQueue) -> None:
    """Even without a wake-up."""
    ids = enqueue(queue, 12)
    bench.dispatcher.wait_and_admit(0.01)
    bench.messages.clear()

    for job_id in ids[:2]:
        queue.cancel(job_id)
    bench.dispatcher.wait_and_admit(0.01)

    assert bench.messages == [("voice.submit", ids[10:])]


def test_the_status_counts_workers_by_their_heartbeats(bench: WorkerBench, queue: VoiceQueue) -> None:
    """A worker is counted from its first heartbeat until it stops."""
    assert queue.status().workers == 0

    bench.dispatcher.send_heartbeat()
    assert queue.status().workers == 1

    bench.dispatcher.remove_heartbeat()
    assert queue.status().workers == 0
