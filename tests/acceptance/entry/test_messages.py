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

from tests.acceptance.conftest import Build, House, settled
from tests.conftest import eventually
from tests.node import MISSING, MODULES, NODE, environment
from voicequeue import State

GUIDE = (Path(__file__).parents[3] / "docs" / "messages.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def house(build_for_all: Build) -> House:
    """One worker."""
    return build_for_all(workers=1)


def example(language: str) -> str:
    """The guide's one example in that language."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```", GUIDE, flags=re.MULTILINE | re.DOTALL)
    return str(found)


@contextmanager
def in_node(house: House, program: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A program for Node that runs in a folder where celery-node is installed, and is ended if it does not end."""
    if not (MODULES / "celery-node").is_dir():
        pytest.fail(MISSING)
    (folder / "node_modules").symlink_to(MODULES)
    (folder / "enqueue.js").write_text(program, encoding="utf-8")
    env = environment() | {"REDIS_URL": house.redis_url}
    command = [str(NODE), "enqueue.js"]
    with subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def finished(house: House, batch: str, count: int = 1) -> None:
    """Wait until so many jobs came into the batch, and all are done."""
    with house.queue() as queue:
        eventually(lambda: batch in [each.name for each in queue.batches()] and queue.batch(batch).total == count)
        eventually(lambda: settled(queue, batch))
        assert queue.batch(batch).states[State.SUCCEEDED] == count
        assert queue.rejects() == []


def test_celery_node_enqueues_as_the_guide_says_and_the_job_finishes(house: House, tmp_path: Path) -> None:
    """A client that is not Python, with its own idea of headers; and sent again it is the same job."""
    for attempt in ("first", "again"):
        folder = tmp_path / attempt
        folder.mkdir()
        with in_node(house, example("js"), folder) as running:
            assert (running.communicate(timeout=60)[1], running.returncode) == ("", 0)

    finished(house, "by-node")


def test_celery_nodes_own_way_to_send_is_understood(house: House, tmp_path: Path) -> None:
    """`sendTask` and a task's `applyAsync` and `delay`, with ids that it makes up, while the program goes on."""
    program = """
        const { createClient } = require("celery-node");
        const client = createClient(process.env.REDIS_URL, process.env.REDIS_URL, "{voicequeue}:celery:intake");
        const job = (name) => ({ audio_url: `https://example.com/${name}.wav`, batch: "sent-by-node" });
        client.sendTask("voicequeue.enqueue", [], { job: job("ana") });
        client.createTask("voicequeue.enqueue").applyAsync([], { job: job("ben") });
        client.createTask("voicequeue.enqueue").delay(job("cleo"));
    """
    with in_node(house, program, tmp_path):
        finished(house, "sent-by-node", 3)


def test_a_celery_client_enqueues_as_the_guide_says_and_the_job_finishes(house: House) -> None:
    """With Celery alone, and without this package."""
    env = {**os.environ, "REDIS_URL": house.redis_url}
    subprocess.run([sys.executable, "-c", example("python")], env=env, check=True, timeout=60)

    finished(house, "by-celery")


@pytest.mark.parametrize("tag", [True, False])
def test_a_message_by_hand_as_the_guide_says_becomes_a_job_that_finishes(house: House, tag: bool) -> None:
    """One LPUSH, with a delivery tag or without; the second is the same job."""
    message = example("json")
    if not tag:
        message = re.sub(r'"delivery_tag": "[^"]*",', "", message)
    with Redis.from_url(house.redis_url) as redis:
        redis.lpush("{voicequeue}:celery:intake", message)

    finished(house, "by-hand")
