"""Callers are told what became of their jobs: real workers, the real process `callbacks`, real receivers."""

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

from tests.acceptance.conftest import Build, House, settled
from tests.acceptance.test_pipeline import run
from tests.conftest import eventually
from tests.node import NODE
from tests.support.scripted import Request, Script, Scripted, answer, one_answer
from voicequeue import Job, State, VoiceJob, VoiceQueue
from voicequeue.auth import signatures
from workers.local.ports import free_port

COMMON = "a secret that everybody here knows"
SECRET = signatures.callback_secret(COMMON)
GUIDE = (Path(__file__).parents[2] / "docs" / "callbacks.md").read_text(encoding="utf-8")
OK = one_answer(answer({}))

Listen = Callable[[Script], Scripted]


@pytest.fixture(scope="module")
def house(build_for_all: Build) -> House:
    """One worker and one process that delivers; it may call this machine by the name `localhost` alone."""
    house = build_for_all(
        workers=1,
        VOICEQUEUE_SECRET=COMMON,
        VOICEQUEUE_CALLBACK_ALLOW="localhost",
        VOICEQUEUE_CALLBACK_FIRST_S="0.2",
        VOICEQUEUE_CALLBACK_MAX_S="0.5",
        VOICEQUEUE_CALLBACK_FOR_S="60",
        VOICEQUEUE_CALLBACK_CONNECT_S="0.5",
        VOICEQUEUE_CALLBACK_ANSWER_S="0.5",
        VOICEQUEUE_CALLBACK_REST_S="0.3",
    )
    house.stack.start_callbacks()
    with house.queue() as queue:
        eventually(lambda: queue.callback_counts().workers, within_s=30)
    return house


@pytest.fixture
def queue(house: House) -> Iterator[VoiceQueue]:
    """A producer."""
    with house.queue() as found:
        yield found


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Starts receivers."""
    with ExitStack() as standing:
        yield lambda script: standing.enter_context(Scripted(script))


def here(url: str) -> str:
    """The same receiver by the name that is allowed."""
    return url.replace("127.0.0.1", "localhost")


def voices(count: int, batch: str, url: str, **fields: Any) -> list[VoiceJob]:
    """Voices whose caller wants to be told there."""
    return [
        VoiceJob(
            audio_url=f"https://recordings.example/{batch}/{n}.wav",
            batch=batch, key=f"{batch}-{n}", callback_url=f"{url}/{batch}", **fields,
        )
        for n in range(count)
    ]  # fmt: skip


def told(receiver: Scripted) -> list[dict[str, Any]]:
    """All that came there, verified by the library of the specification."""
    webhook = Webhook(signatures.receiver_secret(SECRET, here(receiver.url)))
    return [webhook.verify(each.body, each.headers) for each in list(receiver.requests)]


def ids(receiver: Scripted) -> Counter[str]:
    """How often each id came."""
    return Counter(each.headers["webhook-id"] for each in list(receiver.requests))


def nothing_pending(queue: VoiceQueue, batch: str) -> bool:
    """Whether all that was to be told of the batch and its jobs is delivered or given up."""
    return not any(each.batch == batch for each in queue.callbacks())


def last_ids(queue: VoiceQueue, batch: str) -> set[str | None]:
    """The id of the last callback of each of its jobs."""
    return {job.callback_id for job in queue.jobs(batch=batch)}


def failed_first(queue: VoiceQueue, url: str) -> Job:
    """A job that nobody began in time, and which is retried when somebody may."""
    queue.pause()
    [spec] = voices(1, "late", url, start_within_s=0.1)
    job = queue.enqueue(spec)
    eventually(lambda: queue.get(job.id).state is State.FAILED)
    queue.resume()
    return queue.retry(job.id)


def test_a_receiver_that_is_down_for_a_while_gets_everything_in_order_when_it_is_back(
    house: House, queue: VoiceQueue
) -> None:
    """Ten jobs, one of which failed before it succeeded, and their batch, while nobody listens."""
    port = free_port()
    url = f"http://localhost:{port}"
    job = failed_first(queue, url)
    queue.call_back_batch("down", f"{url}/batch")
    queue.enqueue_many(voices(10, "down", url))
    eventually(lambda: settled(queue, "down") and settled(queue, "late"))
    eventually(lambda: any(each.tries for each in queue.callbacks()))
    assert Counter(each.batch for each in queue.callbacks()) == {"down": 11, "late": 2}

    with Scripted(OK, port=port) as receiver:
        eventually(lambda: nothing_pending(queue, "down") and nothing_pending(queue, "late"))

        assert {each["type"] for each in told(receiver)} == {"job.succeeded", "job.failed", "batch.settled"}
        of_job = [each["type"] for each in told(receiver) if each["data"].get("id") == job.id]
        assert of_job == ["job.failed", "job.succeeded"]
        assert last_ids(queue, "down") | last_ids(queue, "late") <= set(ids(receiver))
        [batch] = [each for each in told(receiver) if each["type"] == "batch.settled"]
        assert batch["data"] == {**queue.batch("down").as_dict(), "origin": "library"}
        assert len(ids(receiver)) == 13


def test_a_url_that_leads_to_this_machine_is_refused_and_a_redirect_there_is_not_followed(
    queue: VoiceQueue, listen: Listen
) -> None:
    """Both in the same breath; the one is undelivered, the other is tried again, and nobody got in."""
    inside = listen(OK)
    away = listen(one_answer(answer("", status="308 Away", headers=[f"Location: {inside.url}/in"])))
    [direct] = queue.jobs(batch=_one(queue, "direct", inside.url))
    [round_about] = queue.jobs(batch=_one(queue, "round-about", here(away.url)))

    eventually(lambda: _reason(queue, direct))
    eventually(lambda: _reason(queue, round_about))

    assert "leads to a loopback address, which VOICEQUEUE_CALLBACK_ALLOW" in _reason(queue, direct)
    assert _reason(queue, round_about) == "HTTP 308: redirects are not followed"
    assert inside.accepted == 0


def _one(queue: VoiceQueue, batch: str, url: str) -> str:
    queue.enqueue_many(voices(1, batch, url))
    eventually(lambda: settled(queue, batch))
    return batch


def _reason(queue: VoiceQueue, job: Job) -> str:
    callback = queue.callback(job.callback_id or "")
    return callback.reason if callback else ""


def test_what_the_receiver_wants_no_more_of_is_undelivered_until_somebody_redelivers_it(
    house: House, queue: VoiceQueue, listen: Listen
) -> None:
    """`voicequeue callbacks` shows it and its reason, and sends it again with the same id."""
    is_gone = [True]
    receiver = listen(lambda _: [answer("", status="410 Gone") if is_gone[0] else answer({})])
    _one(queue, "gone", here(receiver.url))
    eventually(lambda: nothing_pending(queue, "gone"))

    listed = json.loads(run(house, "callbacks", "--json").stdout)["undelivered"]
    [shown] = [each for each in listed if each["batch"] == "gone"]
    assert shown["reason"] == "HTTP 410: the receiver wants no more of it"
    is_gone[0] = False
    assert run(house, "callbacks", "--redeliver", shown["id"]).returncode == 0

    eventually(lambda: queue.callback(shown["id"]) is None)
    assert ids(receiver) == Counter({shown["id"]: 2})


def test_a_process_that_is_killed_in_the_middle_leaves_nobody_untold(
    house: House, queue: VoiceQueue, listen: Listen
) -> None:
    """SIGKILL while some are on their way: each comes at least once, again with the same id."""

    def slowly(_: Request) -> Iterator[bytes]:
        time.sleep(0.1)
        yield answer({})

    receiver = listen(slowly)
    queue.enqueue_many(voices(40, "killed", here(receiver.url)))
    eventually(lambda: len(receiver.requests) >= 10)
    pid = house.supervisor.pid("callbacks")
    assert pid is not None
    os.killpg(pid, signal.SIGKILL)
    eventually(lambda: settled(queue, "killed"))

    eventually(lambda: nothing_pending(queue, "killed"), within_s=40)

    assert set(ids(receiver)) == last_ids(queue, "killed")
    assert len(ids(receiver)) == 40
    assert sum(ids(receiver).values()) <= 50


# ── the guide ─────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def guides_receiver(language: str, folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The guide's one example in that language, run as it is."""
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
def test_the_receivers_of_the_guide_verify_what_comes_and_nothing_else(
    house: House, queue: VoiceQueue, tmp_path: Path, language: str
) -> None:
    """A job's success and its batch; a forged one is answered with 400 and prints nothing."""
    with guides_receiver(language, tmp_path) as (url, process):
        forged = Webhook(signatures.receiver_secret("another", here(url)))
        assert _posted(url, forged) == 400
        queue.call_back_batch(f"guide-{language}", f"{here(url)}/batch")
        [job] = queue.jobs(batch=_one(queue, f"guide-{language}", here(url)))
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


# ── bad receivers, which are still there for the house when the tests are over ────────────────────


def test_dead_and_dripping_receivers_slow_neither_jobs_nor_the_callbacks_of_others(
    queue: VoiceQueue, listen: Listen
) -> None:
    """Eighty callbacks to three of them; the twenty others do not wait for their time to run out."""

    def dripping(_: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nX-Drip: "
        for _number in range(100):
            time.sleep(0.05)
            yield b"x"

    bad = [here(listen(dripping).url), here(listen(dripping).url), "http://localhost:1"]
    good = listen(OK)
    for number, url in enumerate(bad):
        queue.enqueue_many(voices(27, f"bad-{number}", url))
    queue.enqueue_many(voices(20, "good", here(good.url)))

    eventually(lambda: all(settled(queue, batch) for batch in ("bad-0", "bad-1", "bad-2", "good")), within_s=10)
    settled_at = time.monotonic()
    eventually(lambda: len(ids(good)) == 20, within_s=10)

    assert time.monotonic() - settled_at < 3
    assert {each["type"] for each in told(good)} == {"job.succeeded"}
