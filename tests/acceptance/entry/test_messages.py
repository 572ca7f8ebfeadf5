"""docs/messages.md, followed literally: every way to send a message ends with a finished job."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from tests.acceptance.conftest import Build, System, settled
from tests.conftest import eventually
from tests.node import MISSING, MODULES, NODE, environment
from voicequeue import State

GUIDE = (Path(__file__).parents[3] / "docs" / "messages.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def system(build_shared: Build) -> System:
    """Start one worker."""
    return build_shared(workers=1)


def example(language: str) -> str:
    """Return the guide's example in this language."""
    [program] = re.findall(rf"^```{language}\n(.*?)^```", GUIDE, flags=re.MULTILINE | re.DOTALL)
    return str(program)


@contextmanager
def in_node(system: System, program: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a Node program in a folder with celery-node; kill it at the end of the block."""
    if not (MODULES / "celery-node").is_dir():
        pytest.fail(MISSING)
    (folder / "node_modules").symlink_to(MODULES)
    (folder / "enqueue.js").write_text(program, encoding="utf-8")
    env = environment() | {"REDIS_URL": system.redis_url}
    command = [str(NODE), "enqueue.js"]
    with subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def wait_until_finished(system: System, batch: str, count: int = 1) -> None:
    """Wait until this many jobs are in the batch and all have succeeded."""
    with system.queue() as queue:
        eventually(lambda: batch in [summary.name for summary in queue.batches()] and queue.batch(batch).total == count)
        eventually(lambda: settled(queue, batch))
        assert queue.batch(batch).states[State.SUCCEEDED] == count
        assert queue.rejects() == []


def test_celery_node_enqueues_as_the_guide_describes(system: System, tmp_path: Path) -> None:
    """A client that is not Python, with its own headers; sending again gives the same job."""
    for attempt in ("first", "again"):
        folder = tmp_path / attempt
        folder.mkdir()
        with in_node(system, example("js"), folder) as running:
            assert (running.communicate(timeout=60)[1], running.returncode) == ("", 0)

    wait_until_finished(system, "by-node")


def test_every_way_to_send_of_celery_node_works(system: System, tmp_path: Path) -> None:
    """`sendTask`, and a task's `applyAsync` and `delay`, with generated ids, while the program keeps running."""
    program = """
        const { createClient } = require("celery-node");
        const client = createClient(process.env.REDIS_URL, process.env.REDIS_URL, "{voicequeue}:celery:intake");
        const job = (name) => ({ audio_url: `https://example.com/${name}.wav`, batch: "sent-by-node" });
        client.sendTask("voicequeue.enqueue", [], { job: job("ana") });
        client.createTask("voicequeue.enqueue").applyAsync([], { job: job("ben") });
        client.createTask("voicequeue.enqueue").delay(job("cleo"));
    """
    with in_node(system, program, tmp_path):
        wait_until_finished(system, "sent-by-node", 3)


def test_a_celery_client_enqueues_as_the_guide_describes(system: System) -> None:
    """With Celery alone, without this package."""
    env = {**os.environ, "REDIS_URL": system.redis_url}
    subprocess.run([sys.executable, "-c", example("python")], env=env, check=True, timeout=60)

    wait_until_finished(system, "by-celery")


@pytest.mark.parametrize("tag", [True, False])
def test_a_message_written_by_hand_as_the_guide_describes_becomes_a_job(system: System, tag: bool) -> None:
    """One LPUSH, with or without a delivery tag; the second is the same job."""
    message = example("json")
    if not tag:
        message = re.sub(r'"delivery_tag": "[^"]*",', "", message)
    with Redis.from_url(system.redis_url) as redis:
        redis.lpush("{voicequeue}:celery:intake", message)

    wait_until_finished(system, "by-hand")
