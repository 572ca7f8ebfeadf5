"""Redis goes away and returns: the system recovers without an operator, nothing is lost or paid twice."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from redis import Redis

from tests.acceptance.conftest import Build, System, jobs, settled, verified_states
from tests.acceptance.entry.test_webhooks import send, signed
from tests.conftest import eventually
from tests.support.refusing import CODES, rejecting_writes
from voicequeue import Job, Stage, State, StoreUnavailableError, VoiceJob, VoiceQueue
from voicequeue.auth import signatures

COUNT = 200
LATER = 50

#: Lease of a POST in seconds.
LEASE_S = 2


@pytest.fixture(scope="module")
def shared_system(build_shared: Build) -> System:
    """Start two workers with many slots and a gateway; the leases of charges are short."""
    return build_shared(
        workers=2,
        web=True,
        VOICEQUEUE_MAX_IN_FLIGHT="300",
        VOICEQUEUE_INITIAL_IN_FLIGHT="300",
        VOICEQUEUE_SUBMIT_LEASE_S=str(LEASE_S),
    )


@pytest.fixture
def system(shared_system: System) -> System:
    """Return the system for one test; upstream answers at once and sends no webhooks by default."""
    shared_system.reset().dial(webhook="never", latency_s=0)
    return shared_system


def pids(system: System) -> list[int | None]:
    """Return the process ids of the workers."""
    return [system.supervisor.pid(name) for name in system.workers]


def failed_connections(system: System) -> int:
    """Return how often the workers failed to connect to the broker."""
    return system.logs().count("Cannot connect to redis")


def restart_valkey(system: System) -> None:
    """Kill Valkey with SIGKILL and wait for its restart."""
    pid = system.supervisor.pid("valkey")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: system.supervisor.pid("valkey") not in (None, pid))


def test_an_outage_longer_than_the_charge_lease_leaves_no_job_unsure(system: System) -> None:
    """Hundreds of jobs are in progress, POSTs among them. A producer that waits enqueues afterwards; one that does not
    gets an error. The same workers then finish every job: they keep upstream's answers, so nothing is unsure."""
    system.dial(latency_s=0.1)
    before, failures_before = pids(system), failed_connections(system)
    with (
        system.queue() as impatient,
        VoiceQueue(system.redis_url, wait_for_redis_s=60, namespace="*") as patient,
        ThreadPoolExecutor(1) as executor,
    ):
        patient.enqueue_many(jobs(COUNT))
        eventually(lambda: _is_busy(patient))
        with system.supervisor.held_down("valkey"):
            waiting = executor.submit(patient.enqueue_many, jobs(LATER, "later"))
            with pytest.raises(StoreUnavailableError):
                impatient.enqueue_many(jobs(LATER, "never"))
            # After 0, 0.5, 1.5 and 3 s: longer than the lease of a charge, and than Celery's own retries.
            eventually(lambda: failed_connections(system) - failures_before >= 4 * len(system.workers))
            assert not waiting.done()
        assert waiting.result(30).new == LATER
        eventually(lambda: settled(patient) and settled(patient, "later"), within_s=60)
        assert "never" not in [batch.name for batch in patient.batches()]

    assert pids(system) == before
    assert verified_states(system, COUNT, spent_elsewhere=LATER * 19)[State.SUCCEEDED] == COUNT
    assert verified_states(system, LATER, "later", spent_elsewhere=COUNT * 19)[State.SUCCEEDED] == LATER


def _is_busy(queue: VoiceQueue) -> bool:
    """Return whether POSTs are in flight and orders are pending upstream."""
    states = queue.batch("voices").states
    return states[State.CHARGING] >= 8 and states[State.PENDING] > 50


def test_a_worker_stays_the_same_process_when_redis_restarts(system: System) -> None:
    """First while idle, then with POSTs in flight."""
    system.dial(latency_s=0.15)
    before = pids(system)
    with VoiceQueue(system.redis_url, wait_for_redis_s=60, namespace="*") as queue:
        restart_valkey(system)
        queue.enqueue_many(jobs(5, "after"))
        eventually(lambda: settled(queue, "after"), within_s=40)
        assert pids(system) == before

        queue.enqueue_many(jobs(60, "busy"))
        eventually(lambda: queue.batch("busy").states[State.CHARGING] >= 8)
        restart_valkey(system)
        eventually(lambda: settled(queue, "busy"), within_s=60)

    assert pids(system) == before
    assert verified_states(system, 60, "busy", spent_elsewhere=5 * 19)[State.SUCCEEDED] == 60


@pytest.mark.parametrize("code", CODES)
def test_a_redis_that_rejects_writes_loses_no_answer_to_a_post_in_flight(system: System, code: str) -> None:
    """Answers that were paid for are kept until Redis accepts them, also long after the lease, so no job becomes
    unsure. The workers' processes stay, and callers get a 503 with the reason of the rejection."""
    system.dial(latency_s=1, voice_s=600)
    before = pids(system)
    with Redis.from_url(system.redis_url) as redis, system.queue() as queue:
        queue.enqueue_many(voices(8, code))
        eventually(lambda: queue.batch(code).states[State.CHARGING] == 8)
        with rejecting_writes(redis, code):
            lease_end = time.monotonic() + LEASE_S + 1
            eventually(lambda: len(system.ledger()["charges"]) == 8)
            body = {"audio_url": "https://r.example/a.wav"}
            rejected = requests.post(f"{system.web}/v1/jobs", json=body, headers=system.key, timeout=10)
            with pytest.raises(StoreUnavailableError, match=f"Redis refuses: {code} .*; "):
                queue.pause()
            assert hook(system, next(queue.jobs(batch=code))) == 503
            eventually(lambda: time.monotonic() > lease_end)
        eventually(lambda: queue.batch(code).states[State.PENDING] == 8)
        assert all(job.task_ids[Stage.VOICE] for job in queue.jobs(batch=code))
        give_up(queue, code)

    assert pids(system) == before
    assert (rejected.status_code, rejected.json()["code"]) == (503, "store_unavailable")
    assert code in rejected.json()["detail"]
    assert int(rejected.headers["Retry-After"]) > 0
    assert system.ledger()["double_charges"] == []
    assert "Traceback" not in (system.home / "log" / "web.log").read_text()


def give_up(queue: VoiceQueue, batch: str) -> None:
    """Cancel jobs that upstream would otherwise process during the other tests."""
    for job in queue.jobs(batch=batch):
        queue.cancel(job.id)


def voices(count: int, batch: str) -> list[VoiceJob]:
    """Return jobs for voices without songs."""
    return [
        VoiceJob(audio_url=f"https://recordings.example/{batch}/{number}.wav", batch=batch) for number in range(count)
    ]


def hook(system: System, job: Job) -> int:
    """Send a webhook that names another task of the job; return the status."""
    secret = (system.home / "secret").read_text()
    token = signatures.webhook_token(secret, job.id, Stage.VOICE, 1)
    body = b'{"task_id": "another"}'
    path = f"/hooks/musicapi/{job.id}/voice?attempt=1&token={token}"
    return send(system, path, body, signed(secret, job.id, body, time.time()))


def test_a_webhook_waits_for_redis_and_gets_503_if_it_stays_away(system: System) -> None:
    """Upstream may not repeat a webhook: it is accepted if Redis returns soon, and rejected with 503 if not, without a
    traceback in the log."""
    system.dial(voice_s=600)
    with system.queue() as queue:
        queue.enqueue_many(jobs(1, "hooked"))
        eventually(lambda: queue.batch("hooked").states[State.PENDING] == 1)
        [job] = queue.jobs(batch="hooked")
    with ThreadPoolExecutor(1) as executor:
        with system.supervisor.held_down("valkey"):
            assert hook(system, job) == 503
            waiting = executor.submit(hook, system, job)
            assert requests.get(f"{system.web}/readyz", timeout=10).status_code == 503
            assert not waiting.done()
        assert waiting.result(30) == 200
    with VoiceQueue(system.redis_url, wait_for_redis_s=60, namespace="*") as queue:
        give_up(queue, "hooked")

    assert "Traceback" not in (system.home / "log" / "web.log").read_text()
