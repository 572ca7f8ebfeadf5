"""A Redis that is away for a while: who waits for it, for how long, and what is told afterwards."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from config.settings import Settings
from tests.store.conftest import Command
from tests.store.life import brought_to, failed, one, put, song_of
from tests.support.jobs import numbered, sung, voice
from tests.support.losing import LosingWay, losing_way
from voicequeue import Code, Filter, Job, State, StoreUnreachable, VoiceJob, VoiceQueue
from voicequeue.domain import transitions
from voicequeue.domain.portions import CHUNK
from voicequeue.storage.job_store import Store, connect
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

PATIENT_S = 60.0


@dataclass(frozen=True)
class MortalValkey:
    """A Valkey on its append-only file, which can be away."""

    url: str
    supervisor: Supervisor

    @contextmanager
    def away(self) -> Iterator[None]:
        """Killed, and started again afterwards."""
        with self.supervisor.held_down("valkey"):
            yield

    @contextmanager
    def away_for(self, seconds: float) -> Iterator[None]:
        """Away at once, and back after some seconds, whatever happens meanwhile."""
        with ExitStack() as held:
            held.enter_context(self.away())
            back = threading.Timer(seconds, held.close)
            back.start()
            yield
            back.join()

    def freeze(self, number: signal.Signals) -> None:
        """SIGSTOP it, or SIGCONT."""
        pid = self.supervisor.pid("valkey")
        assert pid is not None
        os.kill(pid, number)


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MortalValkey]:
    """One for all tests here."""
    with Supervisor(look_every_s=0.02) as supervisor:
        stack = Stack(supervisor, Settings(_env_file=None), home=tmp_path_factory.mktemp("mortal"))
        yield MortalValkey(stack.start_valkey(), supervisor)


@pytest.fixture
def patient(mortal: MortalValkey, prefix: str) -> Iterator[VoiceQueue]:
    """A queue that waits for its Redis."""
    with VoiceQueue(mortal.url, prefix=prefix, wait_for_redis_s=PATIENT_S) as found:
        yield found


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Where something waits while the test goes on."""
    with ThreadPoolExecutor(4) as found:
        yield found


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The URL of a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{taken.getsockname()[1]}/0"


# ── who waits ─────────────────────────────────────────────────────────────────────────────────────


def test_who_waits_enqueues_when_redis_is_back_and_who_does_not_is_told_soon(
    mortal: MortalValkey, patient: VoiceQueue, prefix: str, threads: ThreadPoolExecutor
) -> None:
    """The choice is the producer's; both have lost nothing and written nothing twice."""
    patient.enqueue(voice(key="before"))
    with mortal.away(), VoiceQueue(mortal.url, prefix=prefix) as hasty:
        waiting = threads.submit(patient.enqueue_many, numbered(CHUNK + 10))
        began = time.monotonic()
        with pytest.raises(StoreUnreachable, match=r"Redis does not answer: ConnectionError, tried for \d s"):
            hasty.enqueue(voice())
        assert time.monotonic() - began < 10
        assert not waiting.done()

    receipt = waiting.result(30)

    assert (receipt.new, receipt.known) == (CHUNK + 10, 0)
    assert patient.status().states[State.QUEUED] == CHUNK + 11


@pytest.mark.parametrize(
    "ask",
    [
        lambda queue, job: queue.get(job.id).id,
        lambda queue, _: [found.id for found in queue.jobs()],
        lambda queue, _: queue.status().states[State.QUEUED],
        lambda queue, _: queue.batch("b").total,
        lambda queue, job: len(queue.timeline(job.id)),
        lambda queue, job: queue.cancel(job.id).state,
    ],
)
def test_every_question_waits(
    mortal: MortalValkey,
    patient: VoiceQueue,
    threads: ThreadPoolExecutor,
    ask: Callable[[VoiceQueue, Job], object],
) -> None:
    """Reading and changing alike, and the answers are as if nothing had been."""
    job = patient.enqueue(voice(batch="b"))
    with mortal.away():
        answer = threads.submit(ask, patient, job)
        time.sleep(0.2)
        assert not answer.done()

    assert answer.result(30) in (job.id, [job.id], 1, State.CANCELLED)


def test_a_frozen_redis_is_waited_for_too(
    mortal: MortalValkey, patient: VoiceQueue, threads: ThreadPoolExecutor
) -> None:
    """It takes connections and does not answer them."""
    mortal.freeze(signal.SIGSTOP)
    try:
        waiting = threads.submit(patient.enqueue, voice())
        time.sleep(0.2)
        assert not waiting.done()
    finally:
        mortal.freeze(signal.SIGCONT)

    assert waiting.result(30).state is State.QUEUED


@pytest.mark.parametrize("state", [None, State.QUEUED])
def test_an_iteration_goes_on_where_it_was(mortal: MortalValkey, patient: VoiceQueue, state: State | None) -> None:
    """Redis restarts while somebody reads a long batch: every job comes once, in its order."""
    patient.enqueue_many(numbered(CHUNK * 2 + 10, batch="b"))

    found = patient.jobs(batch="b", state=state)
    keys = [next(found).spec.key]
    with mortal.away():
        pass
    keys += [job.spec.key for job in found]

    assert keys == [f"key-{number}" for number in range(CHUNK * 2 + 10)]


def test_waiting_for_a_job_outlives_a_restart_of_redis(
    mortal: MortalValkey, patient: VoiceQueue, threads: ThreadPoolExecutor
) -> None:
    """What becomes of the job afterwards is told."""
    job = patient.enqueue(voice())
    waiting = threads.submit(patient.wait, job.id, timeout=60)
    with mortal.away():
        time.sleep(0.2)
    patient.cancel(job.id)

    assert waiting.result(30).state is State.CANCELLED


# ── for how long ──────────────────────────────────────────────────────────────────────────────────


def test_waiting_ends_when_its_time_is_over(nowhere: str, caplog: pytest.LogCaptureFixture) -> None:
    """With the error that says how long it was tried; meanwhile the log says what is waited for."""
    began = time.monotonic()
    with (
        caplog.at_level(logging.INFO, "voicequeue"),
        VoiceQueue(nowhere, wait_for_redis_s=2.4) as queue,
        pytest.raises(StoreUnreachable, match=r"tried for [23] s"),
    ):
        queue.enqueue(voice())

    assert 2.4 <= time.monotonic() - began < 10
    [line] = caplog.messages
    assert line.startswith("Redis does not answer; trying for up to ")


def test_who_enqueues_many_waits_once(nowhere: str) -> None:
    """Not once for sending them and once more for the answer."""
    began = time.monotonic()
    with VoiceQueue(nowhere, wait_for_redis_s=3) as queue, pytest.raises(StoreUnreachable):
        queue.enqueue_many(numbered(3))
    assert 3 <= time.monotonic() - began < 5.5


def test_a_jobs_timeout_ends_the_waiting_for_redis_as_well(nowhere: str) -> None:
    """Who waits a second for a job does not wait a minute for its Redis; nothing can be said of the job."""
    began = time.monotonic()
    with VoiceQueue(nowhere, wait_for_redis_s=PATIENT_S) as queue, pytest.raises(StoreUnreachable):
        queue.wait("x", timeout=0.5)

    assert time.monotonic() - began < 10


def test_what_waiting_does_not_mend_is_told_at_once(valkey_url: str) -> None:
    """A wrong password stays wrong."""
    began = time.monotonic()
    url = valkey_url.replace("//", "//:s3cr3t@")
    with (
        VoiceQueue(url, wait_for_redis_s=PATIENT_S) as queue,
        pytest.raises(StoreUnreachable, match="refuses: Authentication"),
    ):
        queue.status()

    assert time.monotonic() - began < 1


@pytest.mark.parametrize("seconds", [-1, math.nan])
def test_a_time_that_cannot_be_is_refused(valkey_url: str, seconds: float) -> None:
    """At once, and not when Redis is away."""
    with pytest.raises(ValueError, match="0 or more"):
        VoiceQueue(valkey_url, wait_for_redis_s=seconds)


def test_connections_are_tried_again_by_time_and_not_by_numbers_that_multiply(nowhere: str) -> None:
    """Threads that share a queue each have their own time."""
    with VoiceQueue(nowhere, wait_for_redis_s=1.5) as queue, ThreadPoolExecutor(8) as threads:

        def seconds(_: int) -> float:
            began = time.monotonic()
            with pytest.raises(StoreUnreachable):
                queue.status()
            return time.monotonic() - began

        assert all(1.5 <= took < 6 for took in threads.map(seconds, range(8)))


# ── what is told when an answer was lost ──────────────────────────────────────────────────────────


@pytest.fixture
def way(valkey_url: str, queue: VoiceQueue) -> Iterator[LosingWay]:
    """A way to the jobs of `queue` on which answers can be lost; Redis knows the scripts."""
    job = queue.enqueue(voice(key="scripts"))
    queue.cancel(job.id)
    with losing_way(valkey_url) as found:
        yield found


@pytest.fixture
def unlucky(way: LosingWay, prefix: str) -> Iterator[VoiceQueue]:
    """The same jobs as `queue`, by that way."""
    with VoiceQueue(way.url, prefix=prefix) as found:
        yield found


def test_the_receipt_is_right_though_the_answer_was_lost(
    queue: VoiceQueue, unlucky: VoiceQueue, way: LosingWay
) -> None:
    """New is what this call wrote, known what was there before or was given twice."""
    queue.enqueue_many(numbered(3))
    given: list[VoiceJob] = [*numbered(6), voice(), voice(), numbered(6)[5], voice(key="key-1", name="other")]
    way.lose_the_answer_to("EVALSHA")

    receipt = unlucky.enqueue_many(given)

    assert way.lost == 1
    assert (receipt.new, receipt.known, receipt.rejected, receipt.credits) == (5, 4, 1, 5 * 4)
    assert queue.status().states[State.QUEUED] == 3 + 5


def test_one_job_is_written_once_though_the_answer_was_lost(
    queue: VoiceQueue, unlucky: VoiceQueue, way: LosingWay
) -> None:
    """Its id was made before: trying again finds it."""
    way.lose_the_answer_to("EVALSHA")

    job = unlucky.enqueue(voice())

    assert way.lost == 1
    assert [found.id for found in queue.jobs(state=State.QUEUED)] == [job.id]


def test_a_change_that_was_made_is_told_as_made_though_the_answer_was_lost(
    queue: VoiceQueue, unlucky: VoiceQueue, way: LosingWay
) -> None:
    """And not as one that the job's state does not allow any more."""
    job = queue.enqueue(voice())
    way.lose_the_answer_to("EVALSHA")

    assert unlucky.cancel(job.id).state is State.CANCELLED
    assert way.lost == 1
    assert [step.state for step in queue.timeline(job.id)] == [State.QUEUED, State.CANCELLED]


def test_jobs_retried_by_the_page_are_counted_though_the_answer_was_lost(
    queue: VoiceQueue, unlucky: VoiceQueue, store: Store, way: LosingWay
) -> None:
    """Those that somebody else has changed since are still told as such."""
    failed = [store.get([brought_to(store, State.FAILED, voice()).id])[0] for _ in range(3)]
    jobs = [job for job in failed if job is not None]
    plan = queue.plan("retry", Filter())
    queue.retry(jobs[1].id)
    way.lose_the_answer_to("EVALSHA")

    assert unlucky.carry_out("retry", plan.token).changed == 2
    assert way.lost == 1


# ── the command ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def at_mortal(at_home: Path, mortal: MortalValkey, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands wait for the Valkey that can be away."""
    monkeypatch.setenv("REDIS_URL", mortal.url)
    monkeypatch.setenv("VOICEQUEUE_WAIT_FOR_REDIS_S", str(PATIENT_S))
    return at_home


def test_the_command_waits_as_long_as_its_setting_says_and_says_so(
    mortal: MortalValkey, at_mortal: Path, patient: VoiceQueue, command: Command
) -> None:
    """A line when it begins to take long and one when Redis is back, on standard error; the result as ever."""
    (at_mortal / "voices.csv").write_text("audio_url\nhttps://recordings.example/ana.wav\n")

    with mortal.away_for(2.5):
        ended = command("ingest", "voices.csv", "--batch", "b", "--json")

    assert (ended.code, ended.json()["new"]) == (0, 1)
    first, last = ended.err.splitlines()
    assert first.startswith("Redis does not answer; trying for up to 5")
    assert last.startswith("Redis answers again, after ")
    assert patient.batch("b").total == 1


def test_watching_outlives_a_restart_of_redis(
    mortal: MortalValkey, at_mortal: Path, patient: VoiceQueue, command: Command
) -> None:
    """What it shows at the end is what became of the jobs."""
    job = patient.enqueue(voice(batch="b"))
    patient.cancel(job.id)

    with mortal.away_for(0.5):
        ended = command("watch", "--batch", "b", "--json")

    assert (ended.code, ended.json()[0]["settled"]) == (1, True)


def test_watching_gives_up_when_its_timeout_is_over(
    at_home: Path, nowhere: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However patient the setting is."""
    monkeypatch.setenv("REDIS_URL", nowhere)
    monkeypatch.setenv("VOICEQUEUE_WAIT_FOR_REDIS_S", str(PATIENT_S))
    began = time.monotonic()

    ended = command("watch", "--timeout", "0.5")

    assert ended.code == 3
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("value", ["soon", "-1", "nan"])
def test_a_patience_that_cannot_be_exits_with_2(command: Command, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The setting is named, and what is allowed."""
    monkeypatch.setenv("VOICEQUEUE_WAIT_FOR_REDIS_S", value)

    ended = command("status")

    assert (ended.code, ended.out) == (2, "")
    assert "VOICEQUEUE_WAIT_FOR_REDIS_S" in ended.err
    assert "0 or more" in ended.err


def test_a_retry_that_goes_on_with_a_voice_at_once_is_told_as_made_though_the_answer_was_lost(
    queue: VoiceQueue, unlucky: VoiceQueue, store: Store, way: LosingWay
) -> None:
    """The one script waits for the voice, and finds it there."""
    [job_id] = put(store, sung(key="retried", reuse=True))
    failed(store, one(store, job_id), Code.REFUSED)
    song_of(store)
    way.lose_the_answer_to("EVALSHA")

    retried = unlucky.retry(job_id)

    assert way.lost == 1
    assert (retried.state, retried.persona_id) == (State.QUEUED, "p-1")


def test_a_change_that_the_job_moved_away_from_is_not_told_as_made_though_the_answer_was_lost(
    queue: VoiceQueue, way: LosingWay, prefix: str
) -> None:
    """A job moved in the same script, but elsewhere."""
    first, second = (queue.enqueue(voice(key=key, reuse=True)) for key in ("first", "second"))
    stale = replace(queue.get(second.id), version=queue.get(second.id).version - 1)
    now = time.time()
    with closing(connect(way.url)) as redis:
        moves = [transitions.cancel(job, now) for job in (queue.get(first.id), stale)]
        way.lose_the_answer_to("EVALSHA")

        assert Store(redis, prefix).apply(moves, now) == [True, False]

    assert queue.get(second.id).state is State.QUEUED
