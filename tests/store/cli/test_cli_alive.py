"""The command `alive`, a probe: it finds the processes of its host by their heartbeats."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis import Redis

from tests.store.conftest import Command
from voicequeue.cli import alive
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.consumption import CANCELLED, CONSUMED
from workers.background import IdleProcess
from workers.local.ports import free_port


@pytest.fixture(autouse=True)
def recheck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait only briefly for a process that sends no heartbeat."""
    monkeypatch.setattr(alive, "RECHECK_S", 0.2)
    monkeypatch.setattr(alive, "PAUSE_S", 0.05)


def send_heartbeat(store: JobStore, facts: Mapping[str, Any] | None = None, *, name: str = "w1") -> None:
    """Send the heartbeat of a worker of this host that has just consumed `poll`, except for these facts."""
    now = time.time()
    usual = {"host": socket.gethostname(), CONSUMED: {"poll": now}}
    store.heartbeats["worker"].record(name, now, {**usual, **(facts or {})})


def test_a_process_that_consumes_is_alive(command: Command, store: JobStore) -> None:
    """Its name is printed, and the exit code is 0."""
    send_heartbeat(store)

    ended = command("alive", "--queue", "poll")

    assert (ended.code, ended.out) == (0, "alive: w1\n")


def test_a_process_that_does_not_consume_fails_with_one_sentence(command: Command, store: JobStore) -> None:
    """Also if another host's worker consumes the queue."""
    send_heartbeat(store, {CONSUMED: {"poll": time.time() - 100}})
    send_heartbeat(store, {"host": "elsewhere"}, name="w2")

    ended = command("alive", "--queue", "poll")

    assert (ended.code, ended.out) == (1, "w1 has not consumed the queue poll for 100 s\n")
    assert command("alive", "--queue", "poll", "--name", "w1").code == 1


def test_a_host_without_a_process_fails(command: Command, store: JobStore) -> None:
    """A worker of another host is none."""
    send_heartbeat(store, {"host": "elsewhere"})

    ended = command("alive", "--queue", "poll", "--queue", "submit")

    assert ended.code == 1
    assert ended.out == (
        "no running process of this host consumes the queue poll; "
        "no running process of this host consumes the queue submit\n"
    )


def test_a_process_that_resumes_after_an_outage_is_not_restarted(
    command: Command, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heartbeat arrives seconds after Redis is back."""
    monkeypatch.setattr(alive, "RECHECK_S", 20)
    monkeypatch.setattr(alive, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: send_heartbeat(store)))

    assert command("alive", "--queue", "poll").out == "alive: w1\n"


def test_a_process_without_heartbeats_for_a_minute_does_not_count(command: Command, store: JobStore) -> None:
    """Its thread that sends them hangs or has ended; a shorter gap is no reason for a restart."""
    facts = {"host": socket.gethostname(), CONSUMED: {"poll": time.time() - 50}}
    store.heartbeats["worker"].record("w1", time.time() - 50, facts)
    assert command("alive").code == 0

    store.heartbeats["worker"].record("w1", time.time() - 61, facts)
    assert command("alive").code == 1


def test_a_process_without_anything_to_do_is_alive_and_does_not_count_as_one_that_works(
    command: Command, store: JobStore
) -> None:
    """A process `archive` without an archive; otherwise it would be restarted forever."""
    stopping = threading.Event()

    def facts(now: float) -> dict[str, Any]:
        stopping.set()
        return {"host": socket.gethostname(), CONSUMED: {"archive": now}}

    process = IdleProcess(store.heartbeats["idle"], store.clock, "archive-1", facts)
    process.send_heartbeat()

    assert command("alive", "--queue", "archive").out == "alive: archive-1\n"
    assert store.archive.counts(0.0).workers == 0
    process.run_until(stopping, 60)
    assert command("alive", "--queue", "archive").code == 1


def test_without_redis_nothing_is_restarted(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart would cure nothing, and would interrupt orders."""
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")

    ended = command("alive", "--queue", "poll")

    assert ended.code == 0
    assert ended.out.startswith("not checked: Redis does not answer")


def test_while_redis_accepts_no_heartbeats_nothing_is_restarted(command: Command, redis: Redis) -> None:
    """It is full, its disk is full, or it lacks replicas."""
    redis.config_set("min-replicas-to-write", 1)
    try:
        ended = command("alive", "--queue", "poll")
    finally:
        redis.config_set("min-replicas-to-write", 0)

    assert ended.code == 0
    assert ended.out.startswith("not checked: Redis does not answer, or refuses the login or writes")


def test_the_json_of_the_probe(command: Command, store: JobStore) -> None:
    """Scripts read what was checked and what is wrong."""
    send_heartbeat(store, {CANCELLED: ["poll"]})

    assert command("alive", "--json").json() == {
        "alive": False,
        "checked": True,
        "processes": ["w1"],
        "problems": ["w1 no longer consumes the queue poll: its consumer was cancelled"],
    }


def test_an_unknown_queue_is_wrong_usage(command: Command) -> None:
    """A probe that could never fail would protect nothing."""
    ended = command("alive", "--queue", "polls")

    assert ended.code == 2
    text = " ".join(ended.err.replace("│", " ").split())
    assert "the queues are submit, poll, intake, callbacks, archive" in text


def test_the_url_may_be_in_a_file(command: Command, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the containers and services get it."""
    send_heartbeat(store)
    file = Path("redis_url")
    file.write_text(os.environ["REDIS_URL"] + "\n", encoding="utf-8")
    monkeypatch.delenv("REDIS_URL")
    monkeypatch.setenv("REDIS_URL_FILE", str(file.resolve()))

    assert command("alive").out == "alive: w1\n"
