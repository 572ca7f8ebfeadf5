"""A Redis that is unreachable for a while: retries, their limits, and correct results afterwards."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from config.settings import Settings
from tests.store.conftest import Command
from tests.support.jobs import numbered_voices, voice
from voicequeue import Job, State, StoreUnavailableError, VoiceQueue
from voicequeue.domain.portions import PORTION_JOBS_MAX
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

PATIENT_S = 60.0


@dataclass(frozen=True)
class MortalValkey:
    """A Valkey with an append-only file that can be stopped and restarted."""

    url: str
    supervisor: Supervisor

    @contextmanager
    def away(self) -> Iterator[None]:
        """Kill it, and start it again on leaving the context."""
        with self.supervisor.held_down("valkey"):
            yield

    @contextmanager
    def away_for(self, seconds: float) -> Iterator[None]:
        """Kill it now, and start it again after some seconds."""
        with ExitStack() as stopped:
            stopped.enter_context(self.away())
            back = threading.Timer(seconds, stopped.close)
            back.start()
            yield
            back.join()

    def freeze(self, number: signal.Signals) -> None:
        """Send it SIGSTOP, or SIGCONT."""
        pid = self.supervisor.pid("valkey")
        assert pid is not None
        os.kill(pid, number)


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MortalValkey]:
    """Return a Valkey for all tests of this module."""
    with Supervisor(check_interval_s=0.02) as supervisor:
        stack = Stack(supervisor, Settings(_env_file=None), home=tmp_path_factory.mktemp("mortal"))
        yield MortalValkey(stack.start_valkey(), supervisor)


@pytest.fixture
def patient(mortal: MortalValkey, prefix: str) -> Iterator[VoiceQueue]:
    """Return a client that waits for its Redis."""
    with VoiceQueue(mortal.url, prefix=prefix, wait_for_redis_s=PATIENT_S) as client:
        yield client


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Return threads that run blocking calls beside the test."""
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def nowhere() -> Iterator[str]:
    """Return the URL of a port on which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{bound.getsockname()[1]}/0"


# ── who waits ─────────────────────────────────────────────────────────────────────────────────────


def test_a_waiting_client_enqueues_after_a_restart_and_another_raises_soon(
    mortal: MortalValkey, patient: VoiceQueue, prefix: str, threads: ThreadPoolExecutor
) -> None:
    """Neither loses a job or writes one twice."""
    patient.enqueue(voice(key="before"))
    with mortal.away(), VoiceQueue(mortal.url, prefix=prefix) as hasty:
        waiting = threads.submit(patient.enqueue_many, numbered_voices(PORTION_JOBS_MAX + 10))
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError, match=r"Redis does not answer: ConnectionError, tried for \d s"):
            hasty.enqueue(voice())
        assert time.monotonic() - began < 10
        assert not waiting.done()

    summary = waiting.result(30)

    assert (summary.new, summary.existing) == (PORTION_JOBS_MAX + 10, 0)
    assert patient.status().states[State.QUEUED] == PORTION_JOBS_MAX + 11


@pytest.mark.parametrize(
    "ask",
    [
        lambda queue, job: queue.get(job.id).id,
        lambda queue, _: [job.id for job in queue.jobs()],
        lambda queue, _: queue.status().states[State.QUEUED],
        lambda queue, _: queue.batch("b").total,
        lambda queue, job: len(queue.timeline(job.id)),
        lambda queue, job: queue.cancel(job.id).state,
    ],
)
def test_every_method_waits(
    mortal: MortalValkey,
    patient: VoiceQueue,
    threads: ThreadPoolExecutor,
    ask: Callable[[VoiceQueue, Job], object],
) -> None:
    """Reads and writes alike; their results are those of an uninterrupted Redis."""
    job = patient.enqueue(voice(batch="b"))
    with mortal.away():
        answer = threads.submit(ask, patient, job)
        time.sleep(0.2)
        assert not answer.done()

    assert answer.result(30) in (job.id, [job.id], 1, State.CANCELLED)


def test_a_frozen_redis_is_waited_for_too(
    mortal: MortalValkey, patient: VoiceQueue, threads: ThreadPoolExecutor
) -> None:
    """It accepts connections and does not answer them."""
    mortal.freeze(signal.SIGSTOP)
    try:
        waiting = threads.submit(patient.enqueue, voice())
        time.sleep(0.2)
        assert not waiting.done()
    finally:
        mortal.freeze(signal.SIGCONT)

    assert waiting.result(30).state is State.QUEUED


@pytest.mark.parametrize("state", [None, State.QUEUED])
def test_an_iteration_continues_after_a_restart(mortal: MortalValkey, patient: VoiceQueue, state: State | None) -> None:
    """Redis restarts while a long batch is read: every job is yielded once, in order."""
    patient.enqueue_many(numbered_voices(PORTION_JOBS_MAX * 2 + 10, batch="b"))

    jobs = patient.jobs(batch="b", state=state)
    keys = [next(jobs).spec.key]
    with mortal.away():
        pass
    keys += [job.spec.key for job in jobs]

    assert keys == [f"key-{number}" for number in range(PORTION_JOBS_MAX * 2 + 10)]


def test_waiting_for_a_job_outlives_a_restart_of_redis(
    mortal: MortalValkey, patient: VoiceQueue, threads: ThreadPoolExecutor
) -> None:
    """The transition after the restart is seen."""
    job = patient.enqueue(voice())
    waiting = threads.submit(patient.wait, job.id, timeout=60)
    with mortal.away():
        time.sleep(0.2)
    patient.cancel(job.id)

    assert waiting.result(30).state is State.CANCELLED


# ── for how long ──────────────────────────────────────────────────────────────────────────────────


def test_waiting_ends_when_its_time_is_over(nowhere: str, caplog: pytest.LogCaptureFixture) -> None:
    """The error says how long was tried; the log says meanwhile that Redis is waited for."""
    began = time.monotonic()
    with (
        caplog.at_level(logging.INFO, "voicequeue"),
        VoiceQueue(nowhere, wait_for_redis_s=2.4) as queue,
        pytest.raises(StoreUnavailableError, match=r"tried for [23] s"),
    ):
        queue.enqueue(voice())

    assert 2.4 <= time.monotonic() - began < 10
    [line] = caplog.messages
    assert line.startswith("Redis does not answer; trying for up to ")


def test_enqueue_many_waits_once(nowhere: str) -> None:
    """Not once for sending and again for the reply."""
    began = time.monotonic()
    with VoiceQueue(nowhere, wait_for_redis_s=3) as queue, pytest.raises(StoreUnavailableError):
        queue.enqueue_many(numbered_voices(3))
    assert 3 <= time.monotonic() - began < 5.5


def test_a_jobs_timeout_ends_the_waiting_for_redis_as_well(nowhere: str) -> None:
    """`wait(timeout=1)` does not wait a minute for Redis; it raises StoreUnavailableError."""
    began = time.monotonic()
    with VoiceQueue(nowhere, wait_for_redis_s=PATIENT_S) as queue, pytest.raises(StoreUnavailableError):
        queue.wait("x", timeout=0.5)

    assert time.monotonic() - began < 10


def test_a_permanent_error_is_not_retried(valkey_url: str) -> None:
    """A wrong password."""
    began = time.monotonic()
    url = valkey_url.replace("//", "//:s3cr3t@")
    with (
        VoiceQueue(url, wait_for_redis_s=PATIENT_S) as queue,
        pytest.raises(StoreUnavailableError, match="refuses: Authentication"),
    ):
        queue.status()

    assert time.monotonic() - began < 1


@pytest.mark.parametrize("seconds", [-1, math.nan])
def test_an_invalid_wait_time_is_rejected(valkey_url: str, seconds: float) -> None:
    """By the constructor."""
    with pytest.raises(ValueError, match="0 or more"):
        VoiceQueue(valkey_url, wait_for_redis_s=seconds)


def test_connections_are_retried_by_time_and_not_by_count(nowhere: str) -> None:
    """Threads that share a client each have their own time."""
    with VoiceQueue(nowhere, wait_for_redis_s=1.5) as queue, ThreadPoolExecutor(8) as threads:

        def seconds(_: int) -> float:
            began = time.monotonic()
            with pytest.raises(StoreUnavailableError):
                queue.status()
            return time.monotonic() - began

        assert all(1.5 <= took < 6 for took in threads.map(seconds, range(8)))


# ── the command ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def at_mortal(working_folder: Path, mortal: MortalValkey, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let commands use the Valkey that can be stopped."""
    monkeypatch.setenv("REDIS_URL", mortal.url)
    monkeypatch.setenv("VOICEQUEUE_WAIT_FOR_REDIS_S", str(PATIENT_S))
    return working_folder


def test_the_command_waits_as_long_as_its_setting_says_and_says_so(
    mortal: MortalValkey, at_mortal: Path, patient: VoiceQueue, command: Command
) -> None:
    """One line on standard error when the waiting becomes long, and one when Redis is back."""
    (at_mortal / "voices.csv").write_text("audio_url\nhttps://recordings.example/ana.wav\n")

    with mortal.away_for(2.5):
        ended = command("ingest", "voices.csv", "--batch", "b", "--json", "--yes")

    assert (ended.code, ended.json()["new"]) == (0, 1)
    first, last = (json.loads(line)["note"]["message"] for line in ended.err.splitlines())
    assert first.startswith("Redis does not answer; trying for up to 5")
    assert last.startswith("Redis answers again, after ")
    assert patient.batch("b").total == 1


def test_watching_outlives_a_restart_of_redis(
    mortal: MortalValkey, at_mortal: Path, patient: VoiceQueue, command: Command
) -> None:
    """The last update shows the jobs' final states."""
    job = patient.enqueue(voice(batch="b"))
    patient.cancel(job.id)

    with mortal.away_for(0.5):
        ended = command("watch", "--batch", "b", "--json")

    assert (ended.code, ended.json()[0]["settled"]) == (1, True)


def test_watching_gives_up_when_its_timeout_is_over(
    working_folder: Path, nowhere: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the setting would wait for Redis."""
    monkeypatch.setenv("REDIS_URL", nowhere)
    monkeypatch.setenv("VOICEQUEUE_WAIT_FOR_REDIS_S", str(PATIENT_S))
    began = time.monotonic()

    ended = command("watch", "--timeout", "0.5")

    assert ended.code == 3
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("value", ["soon", "-1", "nan"])
def test_an_invalid_wait_setting_exits_with_2(command: Command, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The message names the setting and what is allowed."""
    monkeypatch.setenv("VOICEQUEUE_WAIT_FOR_REDIS_S", value)

    ended = command("status")

    assert (ended.code, ended.out) == (2, "")
    assert "VOICEQUEUE_WAIT_FOR_REDIS_S" in ended.err
    assert "0 or more" in ended.err
