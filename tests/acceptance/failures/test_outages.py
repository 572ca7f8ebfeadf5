"""Redis goes away and comes back: nobody has to do anything about it, and nothing was lost or paid twice."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from redis import Redis

from tests.acceptance.conftest import Build, House, jobs, nothing_lost_nothing_paid_twice, settled
from tests.acceptance.entry.test_webhooks import send, signed
from tests.conftest import eventually
from tests.support.refusing import CODES, refusing
from voicequeue import Job, Stage, State, StoreUnreachable, VoiceJob, VoiceQueue
from voicequeue.auth import signatures

COUNT = 200
LATER = 50

#: How long a POST may take.
LEASE_S = 2


@pytest.fixture(scope="module")
def standing(build_for_all: Build) -> House:
    """Two workers with room for many jobs and a gateway, in which a charge is soon not trusted any more."""
    return build_for_all(
        workers=2,
        web=True,
        VOICEQUEUE_MAX_IN_FLIGHT="300",
        VOICEQUEUE_FIRST_IN_FLIGHT="300",
        VOICEQUEUE_CHARGE_LEASE_S=str(LEASE_S),
    )


@pytest.fixture
def house(standing: House) -> House:
    """The house for one test; upstream answers at once and sends no webhooks unless the test says so."""
    standing.renew().dial(webhook="never", latency_s=0)
    return standing


def pids(house: House) -> list[int | None]:
    """The workers' processes."""
    return [house.supervisor.pid(name) for name in house.workers]


def looked_in_vain(house: House) -> int:
    """How often the workers have looked for the broker while it was away."""
    return house.logs().count("Cannot connect to redis")


def restart_valkey(house: House) -> None:
    """SIGKILL, and up again as soon as the supervisor sees it."""
    pid = house.supervisor.pid("valkey")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: house.supervisor.pid("valkey") not in (None, pid))


def test_redis_is_away_for_longer_than_a_charge_is_trusted(house: House) -> None:
    """Hundreds of jobs are on their way, POSTs among them. Who waits enqueues, who does not is told; afterwards
    the same workers finish everything: what upstream has answered meanwhile was kept, so that nothing is unsure.
    """
    house.dial(latency_s=0.1)
    before, looked_before = pids(house), looked_in_vain(house)
    with (
        house.queue() as hasty,
        VoiceQueue(house.redis_url, wait_for_redis_s=60) as patient,
        ThreadPoolExecutor(1) as aside,
    ):
        patient.enqueue_many(jobs(COUNT))
        eventually(lambda: _is_busy(patient))
        with house.supervisor.held_down("valkey"):
            waiting = aside.submit(patient.enqueue_many, jobs(LATER, "later"))
            with pytest.raises(StoreUnreachable):
                hasty.enqueue_many(jobs(LATER, "never"))
            # After 0, 0.5, 1.5 and 3 s: longer than the lease of a charge, and than what Celery would try by itself.
            eventually(lambda: looked_in_vain(house) - looked_before >= 4 * len(house.workers))
            assert not waiting.done()
        assert waiting.result(30).new == LATER
        eventually(lambda: settled(patient) and settled(patient, "later"), within_s=60)
        assert "never" not in [batch.name for batch in patient.batches()]

    assert pids(house) == before
    assert nothing_lost_nothing_paid_twice(house, COUNT, spent_elsewhere=LATER * 19)[State.SUCCEEDED] == COUNT
    assert nothing_lost_nothing_paid_twice(house, LATER, "later", spent_elsewhere=COUNT * 19)[State.SUCCEEDED] == LATER


def _is_busy(queue: VoiceQueue) -> bool:
    """POSTs are on the way, and orders are with upstream."""
    states = queue.batch("voices").states
    return states[State.CHARGING] >= 8 and states[State.PENDING] > 50


def test_a_worker_stays_the_same_process_when_redis_restarts(house: House) -> None:
    """While it is idle, and again while its POSTs are on the way."""
    house.dial(latency_s=0.15)
    before = pids(house)
    with VoiceQueue(house.redis_url, wait_for_redis_s=60) as queue:
        restart_valkey(house)
        queue.enqueue_many(jobs(5, "after"))
        eventually(lambda: settled(queue, "after"), within_s=40)
        assert pids(house) == before

        queue.enqueue_many(jobs(60, "busy"))
        eventually(lambda: queue.batch("busy").states[State.CHARGING] >= 8)
        restart_valkey(house)
        eventually(lambda: settled(queue, "busy"), within_s=60)

    assert pids(house) == before
    assert nothing_lost_nothing_paid_twice(house, 60, "busy", spent_elsewhere=5 * 19)[State.SUCCEEDED] == 60


@pytest.mark.parametrize("code", CODES)
def test_a_redis_that_refuses_writes_while_posts_are_on_their_way_loses_none_of_them(house: House, code: str) -> None:
    """Answers that were paid for are kept until Redis takes them, however long after the lease that is, so that no job
    is unsure. The workers' processes stay, and callers get a 503 that says what Redis refused, and why."""
    house.dial(latency_s=1, voice_s=600)
    before = pids(house)
    with Redis.from_url(house.redis_url) as redis, house.queue() as queue:
        queue.enqueue_many(voices(8, code))
        eventually(lambda: queue.batch(code).states[State.CHARGING] == 8)
        with refusing(redis, code):
            trusted_until = time.monotonic() + LEASE_S + 1
            eventually(lambda: len(house.ledger()["charges"]) == 8)
            body = {"audio_url": "https://r.example/a.wav"}
            said_no = requests.post(f"{house.web}/v1/jobs", json=body, headers=house.key, timeout=10)
            with pytest.raises(StoreUnreachable, match=f"Redis refuses: {code} .*; "):
                queue.pause()
            assert hook(house, next(queue.jobs(batch=code))) == 503
            eventually(lambda: time.monotonic() > trusted_until)
        eventually(lambda: queue.batch(code).states[State.PENDING] == 8)
        assert all(job.task_ids[Stage.VOICE] for job in queue.jobs(batch=code))
        give_up(queue, code)

    assert pids(house) == before
    assert (said_no.status_code, said_no.json()["code"]) == (503, "store_unreachable")
    assert code in said_no.json()["detail"]
    assert int(said_no.headers["Retry-After"]) > 0
    assert house.ledger()["double_charges"] == []
    assert "Traceback" not in (house.home / "log" / "web.log").read_text()


def give_up(queue: VoiceQueue, batch: str) -> None:
    """Cancel what upstream would work on for as long as the other tests run."""
    for job in queue.jobs(batch=batch):
        queue.cancel(job.id)


def voices(count: int, batch: str) -> list[VoiceJob]:
    """Voices without a song."""
    return [
        VoiceJob(audio_url=f"https://recordings.example/{batch}/{number}.wav", batch=batch) for number in range(count)
    ]


def hook(house: House, job: Job) -> int:
    """The status of a webhook that names another task of the job."""
    secret = (house.home / "secret").read_text()
    token = signatures.webhook_token(secret, job.id, Stage.VOICE, 1)
    body = b'{"task_id": "another"}'
    path = f"/hooks/musicapi/{job.id}/voice?attempt=1&token={token}"
    return send(house, path, body, signed(secret, job.id, body, time.time()))


def test_a_webhook_waits_for_redis_and_says_so_if_it_does_not_come(house: House) -> None:
    """Nobody knows whether upstream sends it again: it is taken when Redis is back soon, and refused with 503
    when it is not, without a traceback in the log for each."""
    house.dial(voice_s=600)
    with house.queue() as queue:
        queue.enqueue_many(jobs(1, "hooked"))
        eventually(lambda: queue.batch("hooked").states[State.PENDING] == 1)
        [job] = queue.jobs(batch="hooked")
    with ThreadPoolExecutor(1) as aside:
        with house.supervisor.held_down("valkey"):
            assert hook(house, job) == 503
            waiting = aside.submit(hook, house, job)
            assert requests.get(f"{house.web}/readyz", timeout=10).status_code == 503
            assert not waiting.done()
        assert waiting.result(30) == 200
    with VoiceQueue(house.redis_url, wait_for_redis_s=60) as queue:
        give_up(queue, "hooked")

    assert "Traceback" not in (house.home / "log" / "web.log").read_text()
