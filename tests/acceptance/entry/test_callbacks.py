"""Callbacks on real processes: a real worker, the process `callbacks`, real receivers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from standardwebhooks import Webhook

from tests.acceptance.conftest import Build, System, settled
from tests.conftest import eventually
from tests.node import NODE
from tests.support.scripted import Request, Script, ScriptedServer, always, answer
from voicequeue import Job, State, VoiceJob, VoiceQueue
from voicequeue.auth import signatures
from workers.local.ports import free_port

pytestmark = pytest.mark.essential

COMMON = "a secret shared by all processes"
SECRET = signatures.callback_secret(COMMON)
GUIDE = (Path(__file__).parents[3] / "docs" / "guides" / "callbacks.md").read_text(encoding="utf-8")
OK = always(answer({}))

Listen = Callable[[Script], ScriptedServer]


@pytest.fixture(scope="module")
def system(build_shared: Build) -> System:
    """Start one worker and one callback process, which may call this machine only as `localhost`."""
    system = build_shared(
        workers=1,
        VOICEQUEUE_SECRET=COMMON,
        VOICEQUEUE_CALLBACK_ALLOWED_HOSTS="localhost",
        VOICEQUEUE_CALLBACK_BACKOFF_INITIAL_S="0.2",
        VOICEQUEUE_CALLBACK_BACKOFF_MAX_S="0.5",
        VOICEQUEUE_CALLBACK_RETRY_WINDOW_S="60",
        VOICEQUEUE_CALLBACK_CONNECT_TIMEOUT_S="0.5",
        VOICEQUEUE_CALLBACK_TIMEOUT_S="0.5",
        VOICEQUEUE_CALLBACK_HOST_COOLDOWN_S="0.3",
    )
    system.stack.start_callbacks()
    with system.queue() as queue:
        eventually(lambda: queue.callback_counts().workers, within_s=30)
    return system


@pytest.fixture
def queue(system: System) -> Iterator[VoiceQueue]:
    """Yield a producer."""
    with system.queue() as queue:
        yield queue


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Yield a function that starts receivers."""
    with ExitStack() as resources:
        yield lambda script: resources.enter_context(ScriptedServer(script))


def as_localhost(url: str) -> str:
    """Return the URL of the same receiver under the allowed name."""
    return url.replace("127.0.0.1", "localhost")


def voices(count: int, batch: str, url: str, **fields: Any) -> list[VoiceJob]:
    """Return voice jobs with this callback URL."""
    return [
        VoiceJob(
            audio_url=f"https://recordings.example/{batch}/{n}.wav",
            batch=batch, key=f"{batch}-{n}", callback_url=f"{url}/{batch}", **fields,
        )
        for n in range(count)
    ]  # fmt: skip


def events_of(receiver: ScriptedServer) -> list[dict[str, Any]]:
    """Return all events the receiver got, verified by the library of Standard Webhooks."""
    webhook = Webhook(signatures.receiver_secret(SECRET, as_localhost(receiver.url)))
    return [webhook.verify(request.body, request.headers) for request in list(receiver.requests)]


def ids(receiver: ScriptedServer) -> Counter[str]:
    """Return how often each webhook id was received."""
    return Counter(request.headers["webhook-id"] for request in list(receiver.requests))


def nothing_pending(queue: VoiceQueue, batch: str) -> bool:
    """Return whether all callbacks of the batch and its jobs are delivered or undelivered."""
    return not any(callback.batch == batch for callback in queue.callbacks())


def last_ids(queue: VoiceQueue, batch: str) -> set[str | None]:
    """Return the id of the last callback of each job of the batch."""
    return {job.callback_id for job in queue.jobs(batch=batch)}


def failed_first(queue: VoiceQueue, url: str) -> Job:
    """Return a job that expired before it started, and was then retried."""
    queue.pause()
    [spec] = voices(1, "late", url, start_within_s=0.1)
    job = queue.enqueue(spec)
    eventually(lambda: queue.get(job.id).state is State.FAILED)
    queue.resume()
    return queue.retry(job.id)


def test_a_receiver_that_was_down_gets_every_callback_in_order(system: System, queue: VoiceQueue) -> None:
    """Ten jobs and their batch, one of which failed before it succeeded, while no receiver listens."""
    port = free_port()
    url = f"http://localhost:{port}"
    job = failed_first(queue, url)
    queue.set_batch_callback("down", f"{url}/batch")
    queue.enqueue_many(voices(10, "down", url))
    eventually(lambda: settled(queue, "down") and settled(queue, "late"))
    eventually(lambda: any(callback.attempts for callback in queue.callbacks()))
    assert Counter(callback.batch for callback in queue.callbacks()) == {"down": 11, "late": 2}

    with ScriptedServer(OK, port=port) as receiver:
        eventually(lambda: nothing_pending(queue, "down") and nothing_pending(queue, "late"))

        assert {event["type"] for event in events_of(receiver)} == {"job.succeeded", "job.failed", "batch.settled"}
        of_job = [event["type"] for event in events_of(receiver) if event["data"].get("id") == job.id]
        assert of_job == ["job.failed", "job.succeeded"]
        assert last_ids(queue, "down") | last_ids(queue, "late") <= set(ids(receiver))
        [batch] = [event for event in events_of(receiver) if event["type"] == "batch.settled"]
        assert batch["data"] == {**queue.batch("down").as_dict(), "source": "library"}
        assert len(ids(receiver)) == 13


def test_a_url_of_this_machine_is_rejected_and_a_redirect_to_it_is_not_followed(
    queue: VoiceQueue, listen: Listen
) -> None:
    """The first is undelivered, the second is retried, and no request reaches the inner server."""
    inside = listen(OK)
    away = listen(always(answer("", status="308 Away", headers=[f"Location: {inside.url}/in"])))
    [direct] = queue.jobs(batch=_one(queue, "direct", inside.url))
    [round_about] = queue.jobs(batch=_one(queue, "round-about", as_localhost(away.url)))

    eventually(lambda: _reason(queue, direct))
    eventually(lambda: _reason(queue, round_about))

    assert "resolves to a loopback address, which VOICEQUEUE_CALLBACK_ALLOWED_HOSTS" in _reason(queue, direct)
    assert _reason(queue, round_about) == "HTTP 308: redirects are not followed"
    assert inside.accepted == 0


def _one(queue: VoiceQueue, batch: str, url: str) -> str:
    queue.enqueue_many(voices(1, batch, url))
    eventually(lambda: settled(queue, batch))
    return batch


def _reason(queue: VoiceQueue, job: Job) -> str:
    callback = queue.callback(job.callback_id or "")
    return callback.last_error if callback else ""


def test_a_callback_answered_with_410_is_undelivered_until_an_operator_redelivers_it(
    system: System, queue: VoiceQueue, listen: Listen
) -> None:
    """`voicequeue callbacks` shows it with its reason, and sends it again under the same id."""
    is_gone = [True]
    receiver = listen(lambda _: [answer("", status="410 Gone") if is_gone[0] else answer({})])
    _one(queue, "gone", as_localhost(receiver.url))
    eventually(lambda: nothing_pending(queue, "gone"))

    listed = json.loads(system.run("callbacks", "--json").stdout)["undelivered"]
    [shown] = [callback for callback in listed if callback["batch"] == "gone"]
    assert shown["last_error"] == "HTTP 410: the receiver is gone for good"
    is_gone[0] = False
    assert system.run("callbacks", "--redeliver", shown["id"]).returncode == 0

    eventually(lambda: queue.callback(shown["id"]) is None)
    assert ids(receiver) == Counter({shown["id"]: 2})


@pytest.mark.endurance
def test_a_process_killed_during_delivery_loses_no_callback(system: System, queue: VoiceQueue, listen: Listen) -> None:
    """SIGKILL during deliveries: each callback is received at least once, always under the same id."""

    def slowly(_: Request) -> Iterator[bytes]:
        time.sleep(0.1)
        yield answer({})

    receiver = listen(slowly)
    queue.enqueue_many(voices(40, "killed", as_localhost(receiver.url)))
    eventually(lambda: len(receiver.requests) >= 10)
    pid = system.supervisor.pid("callbacks")
    assert pid is not None
    os.killpg(pid, signal.SIGKILL)
    eventually(lambda: settled(queue, "killed"))

    eventually(lambda: nothing_pending(queue, "killed"), within_s=40)

    assert set(ids(receiver)) == last_ids(queue, "killed")
    assert len(ids(receiver)) == 40
    assert sum(ids(receiver).values()) <= 50


# ── the guide ─────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def example_receiver(language: str, folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the guide's example in this language, unchanged."""
    [program] = re.findall(rf"^```{language}\n(.*?)^```", GUIDE, flags=re.MULTILINE | re.DOTALL)
    file = folder / {"python": "receiver.py", "js": "receiver.js"}[language]
    file.write_text(program)
    port = free_port()
    secret = signatures.receiver_secret(SECRET, f"http://localhost:{port}")
    env = {**os.environ, "CALLBACK_SECRET": secret, "PORT": str(port)}
    command = [sys.executable if language == "python" else str(NODE), str(file)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            eventually(lambda: _listens(port))
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("language", ["python", "js"])
def test_the_receivers_of_the_guide_accept_only_verified_callbacks(
    system: System, queue: VoiceQueue, tmp_path: Path, language: str
) -> None:
    """A job's success and its batch are printed; a forged callback gets 400 and is not printed."""
    with example_receiver(language, tmp_path) as (url, process):
        forged = Webhook(signatures.receiver_secret("another", as_localhost(url)))
        assert _posted(url, forged) == 400
        queue.set_batch_callback(f"guide-{language}", f"{as_localhost(url)}/batch")
        [job] = queue.jobs(batch=_one(queue, f"guide-{language}", as_localhost(url)))
        eventually(lambda: nothing_pending(queue, f"guide-{language}"))
        process.kill()
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    assert sorted(lines) == sorted([f"job.succeeded {job.id}", f"batch.settled guide-{language}"])


def _posted(url: str, webhook: Webhook) -> int:
    now = datetime.now(UTC)
    signature = webhook.sign("forged", now, "{}")
    headers = {
        "webhook-id": "forged",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    return requests.post(url, data="{}", headers=headers, timeout=5).status_code


# ── bad receivers, last because deliveries to them continue after the test ────────────────


@pytest.mark.endurance
def test_dead_and_slow_receivers_delay_neither_jobs_nor_callbacks_to_others(queue: VoiceQueue, listen: Listen) -> None:
    """Eighty callbacks to three bad receivers: the twenty to a good one do not wait for their timeouts."""

    def dripping(_: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nX-Drip: "
        for _number in range(100):
            time.sleep(0.05)
            yield b"x"

    bad = [as_localhost(listen(dripping).url), as_localhost(listen(dripping).url), "http://localhost:1"]
    good = listen(OK)
    for number, url in enumerate(bad):
        queue.enqueue_many(voices(27, f"bad-{number}", url))
    queue.enqueue_many(voices(20, "good", as_localhost(good.url)))

    eventually(lambda: all(settled(queue, batch) for batch in ("bad-0", "bad-1", "bad-2", "good")), within_s=10)
    settled_at = time.monotonic()
    eventually(lambda: len(ids(good)) == 20, within_s=10)

    assert time.monotonic() - settled_at < 3
    assert {event["type"] for event in events_of(good)} == {"job.succeeded"}
