"""Steps that tests of checked recordings share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from tasks.recordings import RecordingChecks
from tests.integration.conftest import Bench
from tests.support.recordings import response, wav
from tests.support.scripted import Request, ScriptedServer
from voicequeue import Stage, VoiceJob
from voicequeue.domain.timeouts import CheckTimeouts
from voicequeue.ingest.preflight import RecordingRules
from voicequeue.ingest.recording_head import HeadChecker
from voicequeue.net.address_policy import AddressPolicy
from voicequeue.net.http_types import HttpTimeouts

HOST = "127.0.0.1"
HERE = AddressPolicy.parse(HOST, setting="VOICEQUEUE_AUDIO_ALLOWED_HOSTS")
TIMES = HttpTimeouts(connect_s=1, response_s=5, total_s=5)
WINDOW_S = 100.0
GOOD = response(wav(20))


def checking(bench: Bench, **timeouts: float) -> Bench:
    """Return the bench as a worker that checks recordings, with no outcome in its memory."""
    store = bench.store
    checks = RecordingChecks(
        HeadChecker(RecordingRules(policy=HERE, timeouts=TIMES)),
        store.recordings,
        store.metrics,
        sources=bench.services.sources,
        clock=bench.clock,
        timeouts=CheckTimeouts(**{"give_up_after_s": WINDOW_S, "hold_s": 3.0, **timeouts}),
    )
    return replace(bench, services=replace(bench.services, recordings=checks))


def ordered(upstream: ScriptedServer) -> list[str]:
    """Return the names of the recordings that were ordered."""
    return sorted(request.json()["audio_url"].rpartition("/")[2] for request in upstream.requests)


def recording(server: ScriptedServer, name: str, **fields: object) -> VoiceJob:
    """Return a job for a recording of the server."""
    return VoiceJob.model_validate({"audio_url": f"{server.url}/{name}", "key": f"{server.url}{name}", **fields})


@contextmanager
def hanging() -> Iterator[ScriptedServer]:
    """Give a server of recordings that never answers."""
    is_over = threading.Event()

    def script(_: Request) -> Iterable[bytes]:
        is_over.wait(30)
        yield GOOD

    with ScriptedServer(script) as server:
        try:
            yield server
        finally:
            is_over.set()


def turn(bench: Bench, seconds: float) -> int:
    """Let time pass, admit jobs once and submit them; return how many there were."""
    bench.clock.now += seconds
    admitted = [job_id for job_ids in bench.admit().values() for job_id in job_ids]
    bench.submit(Stage.VOICE, admitted)
    return len(admitted)


def wait_until(is_true: Callable[[], bool]) -> None:
    """Wait up to ten seconds for a condition."""
    deadline = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
