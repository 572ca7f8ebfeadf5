"""The previous release and this one side by side: producers, workers and the gateway of both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE, STDOUT

from redis import Redis

from tests.tools.rolling import run
from voicequeue.storage.connection.format_check import format_key
from workers.local.ports import free_port
from workers.local.stack import ROOT, procfile


def test_two_releases_share_a_queue_while_processes_are_upgraded(tmp_path: Path) -> None:
    """Five hundred jobs of both releases: none is lost, charged twice or unsure, and the records agree.

    One worker stays on the previous release; the other one, the gateway and the callbacks are upgraded under load.
    `python -m tests.tools.rolling` restarts every process, again and again, and goes back as well.
    """
    processes = ("worker.1", "worker.2", "web", "callbacks")
    restarted = ("worker.1", "web", "callbacks")

    assert run(rounds=1, jobs=500, seed=4, home=tmp_path, say=print, processes=processes, restarted=restarted) == []


def test_no_process_starts_on_a_queue_that_needs_a_newer_release(
    valkey_url: str, prefix: str, redis: Redis, tmp_path: Path
) -> None:
    """It ends at once, with one sentence that says what to do; a supervisor tries again until it is upgraded."""
    redis.hset(format_key(prefix), mapping={"version": 2, "oldest_reader": 2})
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "REDIS_URL": valkey_url,
        "VOICEQUEUE_PREFIX": prefix,
        "VOICEQUEUE_ARCHIVE_URL": f"file://{tmp_path}",
        "FLOWER_DB": str(tmp_path / "state"),
        "FLOWER_PORT": str(free_port()),
        "PORT": str(free_port()),
    }
    processes = {
        kind: subprocess.Popen(command, shell=True, cwd=ROOT, env=environment, stdout=PIPE, stderr=STDOUT, text=True)
        for kind, command in procfile().items()
    }

    outputs = {kind: process.communicate(timeout=60)[0] for kind, process in processes.items()}

    assert set(outputs) == {"worker", "callbacks", "archive", "flower", "web"}
    assert all(process.returncode for process in processes.values())
    problem = "this release is too old for the queue: it knows format 1, and the queue needs format 2"
    assert {kind: output.count(problem) for kind, output in outputs.items()} == dict.fromkeys(outputs, 1)
    assert not any("Traceback" in output for output in outputs.values())
