"""Checked recordings with real workers, one of which is killed: only what can be used is ordered."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from tests.acceptance.conftest import Build
from tests.acceptance.failures.test_crashes import kill
from tests.conftest import eventually
from tests.support.recordings import response, serving, wav
from tests.support.scripted import Request, ScriptedServer
from voicequeue import FailureCode, State, VoiceJob


def test_a_dead_host_and_a_killed_worker_cost_nothing_and_delay_no_other_host(build: Build) -> None:
    """The jobs of the dead host fail after the time for checks, those of the other one are ordered meanwhile."""
    is_over, is_asked = threading.Event(), threading.Event()

    def hang(_: Request) -> Iterable[bytes]:
        is_asked.set()
        is_over.wait(5)
        yield response(b"", status="503 Service Unavailable")

    files = {f"/{number}.wav": response(wav(20)) for number in range(12)}
    with ScriptedServer(hang) as dead, serving(files) as healthy:
        system = build(
            workers=2,
            VOICEQUEUE_CHECK_RECORDINGS="true",
            VOICEQUEUE_CHECK_RETRY_WINDOW_S="4",
            VOICEQUEUE_CHECK_BACKOFF_INITIAL_S="0.5",
            VOICEQUEUE_AUDIO_ALLOWED_HOSTS="127.0.0.1",
            VOICEQUEUE_AUDIO_FIRST_BYTE_TIMEOUT_S="1",
        )
        with system.queue() as queue:
            queue.enqueue_many(VoiceJob(audio_url=f"{dead.url}/{number}.wav", batch="dead") for number in range(60))
            assert is_asked.wait(20)
            kill(system, "worker.1", whole_group=True)
            queue.enqueue_many(VoiceJob(audio_url=f"{healthy.url}{path}", batch="healthy") for path in files)
            eventually(lambda: queue.batch("healthy").is_settled, within_s=30)
            assert not queue.batch("dead").is_settled
            eventually(lambda: queue.batch("dead").is_settled, within_s=110)
            states = {name: queue.batch(name).states for name in ("dead", "healthy")}
            others = [job for job in queue.jobs(batch="dead") if job.state is not State.FAILED]
            assert others == [], [list(queue.timeline(job.id)) for job in others]
            assert (states["healthy"][State.SUCCEEDED], states["dead"][State.FAILED]) == (12, 60)
            failures = [job.failure for job in queue.jobs(batch="dead")]
            assert {failure and failure.code for failure in failures} == {FailureCode.RECORDING_UNREACHABLE}
            assert queue.audit() == []
        is_over.set()
    ledger = system.ledger()
    assert (ledger["credits_spent"], ledger["double_charges"]) == (12 * 4, [])
