"""The documented deployment on several hosts whose links are cut and healed: nothing is lost or paid twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.hosts.deployment import Deployment, deployed
from tests.conftest import eventually
from tests.support.network import why_no_network
from voicequeue import State

#: How long a link is cut (seconds).
CUT_S = 2.0

#: Work resumes within this time after a link is healed (seconds).
RESUMES_WITHIN_S = 30.0


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Start Valkey and the gateway on one host, the other processes on another."""
    if reason := why_no_network():
        pytest.skip(reason)
    with deployed(tmp_path_factory.mktemp("hosts")) as started:
        yield started


def jobs(deployment: Deployment, numbers: range) -> list[dict[str, Any]]:
    """Return jobs for a voice and a song each."""
    return [
        {
            "audio_url": f"https://recordings.example/{number}.wav",
            "song": {"title": f"Song {number}", "prompt": "la la"},
            "key": f"hosts-{number}",
            "callback_url": f"{deployment.receiver.server.url}/jobs",
        }
        for number in numbers
    ]


def test_a_worker_host_that_is_cut_from_redis_loses_nothing(deployment: Deployment) -> None:
    """Packets between both hosts vanish for some seconds while jobs run. The gateway accepts jobs meanwhile. Then all
    jobs succeed without an operator, each is paid and reported once, and none is unsure: the worker has kept the
    responses of MusicAPI."""
    deployment.enqueue("spring", jobs(deployment, range(20)))
    eventually(lambda: deployment.ledger()["charges"])
    with deployment.network.lost(deployment.workers, deployment.store):
        deployment.enqueue("spring", jobs(deployment, range(20, 30)))
        time.sleep(CUT_S)

    with deployment.queue() as queue:
        eventually(lambda: queue.batch("spring").is_settled, within_s=RESUMES_WITHIN_S)
        eventually(lambda: queue.callback_counts().pending == 0, within_s=RESUMES_WITHIN_S)
        done = list(queue.jobs(batch="spring"))
    assert [job.state for job in done] == [State.SUCCEEDED] * 30
    ledger = deployment.ledger()
    assert ledger["double_charges"] == []
    assert ledger["credits_spent"] == sum(job.credits for job in done)
    assert deployment.receiver.of_jobs == {job.id: ["job.succeeded"] for job in done}
    assert deployment.receiver.unsigned == 0
    eventually(lambda: len(deployment.flower_workers()) == 2, within_s=RESUMES_WITHIN_S)
