"""The documented deployment on several hosts whose links are cut and healed: nothing is lost or paid twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from tests.acceptance.hosts.deployment import Deployment, deployed
from tests.conftest import eventually
from tests.support.network import why_no_network
from voicequeue import Job, State

#: How long a link is cut (seconds).
CUT_S = 4.0

#: Work resumes within this time after a link is healed (seconds).
RESUMES_WITHIN_S = 30.0

_numbers = count()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Start Valkey and the gateway on one host, the other processes on another."""
    if reason := why_no_network():
        pytest.skip(reason)
    with deployed(tmp_path_factory.mktemp("hosts")) as started:
        yield started


def jobs(deployment: Deployment, size: int) -> list[dict[str, Any]]:
    """Return jobs for a voice and a song each."""
    return [
        {
            "audio_url": f"https://recordings.example/{number}.wav",
            "song": {"title": f"Song {number}", "prompt": "la la"},
            "key": f"hosts-{number}",
            "callback_url": f"{deployment.receiver.server.url}/jobs",
        }
        for number in (next(_numbers) for _ in range(size))
    ]


def settled_jobs(deployment: Deployment, batch: str, size: int) -> list[Job]:
    """Wait until all jobs of the batch are settled and their callbacks delivered; return them. Nothing was charged
    twice, and the records agree with the ledger."""
    with deployment.queue() as queue:
        eventually(lambda: queue.batch(batch).is_settled, within_s=RESUMES_WITHIN_S)
        eventually(lambda: queue.callback_counts().pending == 0, within_s=RESUMES_WITHIN_S)
        batch_jobs = list(queue.jobs(batch=batch))
        booked = sum(job.credits for job in queue.jobs())
        unsure = sum(job.state is State.UNSURE for job in queue.jobs())
    assert len(batch_jobs) == size
    ledger = deployment.ledger()
    assert ledger["double_charges"] == []
    assert booked <= ledger["credits_spent"] <= booked + 15 * unsure
    return batch_jobs


def test_a_worker_host_that_is_cut_from_redis_loses_nothing(deployment: Deployment) -> None:
    """Packets between both hosts vanish for some seconds while jobs run. The gateway accepts jobs meanwhile. Then all
    jobs succeed without an operator, each is reported once, and none is unsure: the worker has kept the responses."""
    deployment.enqueue("lost", jobs(deployment, 40))
    eventually(lambda: deployment.ledger()["charges"])
    with deployment.network.lost(deployment.workers, deployment.store):
        deployment.enqueue("lost", jobs(deployment, 20))
        time.sleep(CUT_S)

    done = settled_jobs(deployment, "lost", 60)
    assert {job.state for job in done} == {State.SUCCEEDED}
    assert {job.id: deployment.receiver.of_jobs[job.id] for job in done} == {job.id: ["job.succeeded"] for job in done}
    assert deployment.receiver.unsigned == 0
    eventually(lambda: len(deployment.flower_workers()) == 2, within_s=RESUMES_WITHIN_S)


def test_a_worker_host_without_a_network_pays_for_nothing_twice(deployment: Deployment) -> None:
    """Its cable is out while it sends orders. Jobs whose response was lost are unsure; all others succeed."""
    deployment.enqueue("unplugged", jobs(deployment, 40))
    eventually(lambda: deployment.ledger()["charges"])
    with deployment.network.unplugged(deployment.workers):
        deployment.enqueue("unplugged", jobs(deployment, 20))
        time.sleep(CUT_S)

    assert {job.state for job in settled_jobs(deployment, "unplugged", 60)} <= {State.SUCCEEDED, State.UNSURE}
