"""An order whose answer was lost: a webhook settles it, or a person does; nothing else ever does."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import psutil
import pytest
import requests
from redis import Redis

from tests.acceptance.conftest import Build, House, jobs, nothing_lost_nothing_paid_twice, settled
from tests.acceptance.test_pipeline import run
from tests.conftest import eventually
from voicequeue import Code, Job, Stage, State, VoiceJob, signing

COUNT = 60


def test_lost_answers_are_found_again_by_webhooks(build: Build) -> None:
    """A fifth of all answers is lost after the charge: every job succeeds by itself, each paid once."""
    faults = {"reset_after": 0.1, "garbage_after": 0.1}
    house = build(web=True, dials={"post_faults": faults, "webhook": "once"})
    with house.queue() as queue:
        queue.enqueue_many(jobs(COUNT))
        eventually(lambda: queue.batch("voices").states[State.SUCCEEDED] == COUNT, within_s=60)

    assert sum(house.ledger()["faults"].values()) > 0
    nothing_lost_nothing_paid_twice(house, COUNT)


def lose_the_answer(house: House) -> Job:
    """Let the worker die when it has upstream's answer and is about to write the task id; gives the job, unsure by now.

    The charge is held up on its way until Valkey writes nothing any more; so the worker has its answer and can
    do nothing with it.
    """
    pid = house.supervisor.pid("worker.1")
    assert pid is not None
    with house.queue() as queue, Redis.from_url(house.redis_url) as redis:
        house.dial(latency_s=1)
        queue.enqueue_many(jobs(1))
        eventually(lambda: house.ledger()["charges"])
        redis.client_pause(60_000, all=False)
        eventually(lambda: house.ledger()["charges"][0]["answered"] and waits_to_write(redis, pid))
        os.killpg(pid, signal.SIGKILL)
        redis.client_unpause()
        house.dial(latency_s=0)
        eventually(lambda: queue.batch("voices").states[State.UNSURE] == 1, within_s=30)
        [job] = queue.jobs(state=State.UNSURE)
    assert len(house.ledger()["charges"]) == 1
    return job


def waits_to_write(redis: Redis, worker: int) -> bool:
    """Whether a child of the worker, where the tasks run, has sent a script that is held up."""
    ports = {
        connection.laddr.port
        for child in psutil.Process(worker).children()
        for connection in child.net_connections("tcp")
    }
    clients = redis.client_list()
    held = (client for client in clients if "b" in client["flags"] and client["cmd"].startswith("eval"))
    return any(int(client["addr"].rpartition(":")[2]) in ports for client in held)


def test_a_worker_that_dies_before_it_writes_the_task_id_is_helped_by_a_webhook(build: Build) -> None:
    """The webhook comes after the job went unsure, tells the task id, and the job goes on by itself."""
    house = build(workers=1, web=True, dials={"webhook": "late", "webhook_delay_s": 8}, VOICEQUEUE_CHARGE_LEASE_S="1")
    lose_the_answer(house)

    with house.queue() as queue:
        eventually(lambda: queue.batch("voices").states[State.SUCCEEDED] == 1, within_s=60)
        [job] = queue.jobs(batch="voices")
        assert "a webhook told the task id" in [step.reason for step in queue.timeline(job.id)]

    nothing_lost_nothing_paid_twice(house, 1)


def webhook_of(house: House, job: Job, task_id: str) -> int:
    """Send the webhook of a job's first order, as upstream does; its status."""
    secret = (house.home / "secret").read_text()
    token = signing.webhook_token(secret, job.id, Stage.VOICE, 1)
    body = json.dumps({"task_id": task_id, "state": "succeeded"}).encode()
    path = f"/hooks/musicapi/{job.id}/voice?attempt=1&token={token}"
    return send(house, path, body, signed(secret, job.id, body, time.time()))


def test_a_lost_order_that_a_webhook_names_after_it_was_ordered_again_is_used_or_counted(build: Build) -> None:
    """Not sent again yet: nothing is. Sent again: both charges are counted. Expired meanwhile: a retry pays nothing.

    In each case the credits of the job are those that upstream took for it.
    """
    house = build(workers=1, web=True, dials={"webhook": "never", "post_faults": {"reset_after": 1}})
    waits, sent, late = (voice_job(name) for name in ("waits", "sent", "late"))
    with house.queue() as queue, Redis.from_url(house.redis_url) as redis:
        queue.enqueue_many([waits, sent, late])
        eventually(lambda: queue.batch("voices").states[State.UNSURE] == 3)
        first = {charge["subject"]: charge["task_id"] for charge in house.ledger()["charges"]}
        house.dial(post_faults={})
        queue.pause()
        for job in (waits, late):
            queue.order_again(job.id())
        eventually(lambda: queue.batch("voices").states[State.QUEUED] == 2)
        redis.zadd(f"{{{house.prefix}}}:expiry", {late.id(): time.time()})  # its time to begin is over
        eventually(lambda: queue.get(late.id()).state is State.FAILED)
        for job in (waits, late):
            assert webhook_of(house, queue.get(job.id()), first[job.audio_url]) == 200
        eventually(lambda: queue.get(waits.id()).state is State.SUCCEEDED and queue.get(late.id()).persona_id)
        queue.resume()
        queue.order_again(sent.id())
        eventually(lambda: queue.get(sent.id()).state is State.SUCCEEDED)
        for _ in range(2):
            assert webhook_of(house, queue.get(sent.id()), first[sent.audio_url]) == 200

        failure = queue.get(late.id()).failure
        assert failure is not None
        assert "may have been charged" in failure.message
        assert queue.retry(late.id()).state is State.SUCCEEDED
        assert [queue.get(job.id()).credits for job in (waits, sent, late)] == [4, 8, 4]
        assert queue.status().credits == house.ledger()["credits_spent"] == 16
        assert queue.timeline(sent.id())[-1].task_id == first[sent.audio_url]


def voice_job(name: str) -> VoiceJob:
    """A voice of that name, which must have begun within an hour."""
    url = f"https://recordings.example/{name}.wav"
    return VoiceJob(audio_url=url, batch="voices", key=name, start_within_s=3600)


def test_a_failure_that_upstream_takes_back_costs_nothing(build: Build) -> None:
    """Said once, the job waits; said again, it fails, and a retry asks before it pays."""
    house = build(workers=1, dials={"get_faults": {"false_failure": 1}})
    with house.queue() as queue:
        queue.enqueue_many(jobs(1))
        eventually(lambda: queue.batch("voices").states[State.FAILED] == 1, within_s=30)
        [job] = queue.jobs(batch="voices")
        assert job.failure is not None
        assert job.failure.code is Code.UPSTREAM_FAILED
        assert house.logs().count("upstream says that it failed") == 1
        house.dial(get_faults={})

        assert run(house, "retry", job.id, "--yes").returncode == 0

        eventually(lambda: queue.batch("voices").states[State.SUCCEEDED] == 1, within_s=30)
    nothing_lost_nothing_paid_twice(house, 1)
    assert [charge["kind"] for charge in house.ledger()["charges"]] == ["voice", "music"]


def test_without_webhooks_a_person_reviews_it_and_nothing_orders_it_again(build: Build) -> None:
    """`review` shows it; given the task id it goes on, without another charge for its voice."""
    house = build(workers=1, VOICEQUEUE_CHARGE_LEASE_S="1", VOICEQUEUE_UNSURE_GRACE_S="0.1")
    lost = lose_the_answer(house)
    [charge] = house.ledger()["charges"]

    listed = json.loads(run(house, "review", "--json").stdout)
    assert [(each["id"], each["stage"], each["reason"]) for each in listed] == [
        (lost.id, "voice", "the worker died while charging")
    ]
    assert run(house, "review", lost.id, "--resubmit").returncode != 0  # nobody answered the question
    assert len(house.ledger()["charges"]) == 1
    taken = json.loads(run(house, "review", lost.id, "--task-id", charge["task_id"], "--json").stdout)

    assert taken["state"] == "pending"
    with house.queue() as queue:
        eventually(lambda: queue.batch("voices").states[State.SUCCEEDED] == 1, within_s=60)
    nothing_lost_nothing_paid_twice(house, 1)


@pytest.mark.parametrize("how", ["a person", "the policy"])
def test_ordering_again_is_a_decision_that_stands_on_the_timeline(build: Build, how: str) -> None:
    """A second charge exists only because somebody, or the policy, said so."""
    policy = {"VOICEQUEUE_UNSURE": "resubmit", "VOICEQUEUE_UNSURE_GRACE_S": "1"} if how == "the policy" else {}
    house = build(workers=1, VOICEQUEUE_CHARGE_LEASE_S="1", **policy)
    lost = lose_the_answer(house)
    if how == "a person":
        assert run(house, "review", lost.id, "--resubmit", "--yes").returncode == 0

    with house.queue() as queue:
        eventually(lambda: queue.batch("voices").states[State.SUCCEEDED] == 1, within_s=60)
        reasons = [step.reason for step in queue.timeline(lost.id)]

    voices = [charge for charge in house.ledger()["charges"] if charge["kind"] == "voice"]
    assert len(voices) == 2
    assert ("somebody ordered it again" if how == "a person" else "the policy ordered it again") in reasons


def test_giving_up_is_a_failure_of_its_own_code(build: Build) -> None:
    """`--abandon` ends the job; its credits are counted by nobody, for nobody knows."""
    house = build(workers=1, VOICEQUEUE_CHARGE_LEASE_S="1")
    lost = lose_the_answer(house)

    given_up = json.loads(run(house, "review", lost.id, "--abandon", "--json").stdout)

    assert (given_up["state"], given_up["failure"]["code"], given_up["credits"]) == ("failed", "abandoned", 0)
    assert run(house, "review").stdout.strip() == "no job is unsure"


def send(house: House, path: str, body: bytes, headers: dict[str, str]) -> int:
    """POST to the gateway; its status."""
    return requests.post(f"{house.web}{path}", data=body, headers=headers, timeout=10).status_code


def signed(secret: str, job_id: str, body: bytes, at: float) -> dict[str, str]:
    """Headers as upstream sends them."""
    timestamp = str(int(at))
    key = signing.webhook_secret(secret, job_id)
    return {
        "X-Webhook-Timestamp": timestamp,
        "X-Webhook-Signature": signing.upstream_signature(key, timestamp, body),
    }


def test_what_is_forged_replayed_altered_or_too_large_changes_nothing(build: Build) -> None:
    """401, 413 or 404 before anything is believed; the job stays as it is, and the right one is taken."""
    house = build(workers=1, web=True, dials={"voice_s": 600, "webhook": "never"})
    with house.queue() as queue:
        queue.enqueue_many(jobs(1))
        eventually(lambda: queue.batch("voices").states[State.PENDING] == 1)
        [before] = queue.jobs(batch="voices")
    secret = (house.home / "secret").read_text()
    body, now = b'{"task_id": "another"}', time.time()
    good = signed(secret, before.id, body, now)

    def path(job_id: str = before.id, *, token: str | None = None, attempt: int = 1) -> str:
        made = signing.webhook_token(secret, job_id, Stage.VOICE, attempt)
        return f"/hooks/musicapi/{job_id}/voice?attempt={attempt}&token={token or made}"

    statuses: dict[str, Any] = {
        "a forged token": send(house, path(token="0" * 40), body, good),
        "no token": send(house, f"/hooks/musicapi/{before.id}/voice", body, good),
        "another attempt's token": send(house, path().replace("attempt=1", "attempt=2"), body, good),
        "no signature": send(house, path(), body, {}),
        "a forged signature": send(house, path(), body, signed("wrong", before.id, body, now)),
        "an altered body": send(house, path(), body + b" ", good),
        "a replay": send(house, path(), body, signed(secret, before.id, body, now - 301)),
        "too large": send(house, path(), b"x" * 300_000, good),
        "an unknown job": send(house, path("nosuchjob"), body, signed(secret, "nosuchjob", body, now)),
    }

    assert statuses == dict.fromkeys(statuses, 401) | {"too large": 413, "an unknown job": 404}
    with house.queue() as queue:
        assert queue.get(before.id) == before
    assert send(house, path(), body, good) == 200
    assert send(house, path(), body, good) == 200  # twice does no harm
    with house.queue() as queue:
        assert queue.get(before.id).task_ids == before.task_ids


def test_the_gateway_says_whether_it_is_alive_and_ready(build: Build) -> None:
    """Alive without workers; ready once a pulse was heard; not ready without Redis."""
    house = build(workers=0, web=True)
    status = {path: requests.get(f"{house.web}{path}", timeout=10).status_code for path in ("/healthz", "/readyz")}
    assert status == {"/healthz": 200, "/readyz": 503}

    house.stack.start_workers(1)

    eventually(lambda: requests.get(f"{house.web}/readyz", timeout=10).status_code == 200)


def test_settled_says_unsure_counts_as_resting(build: Build) -> None:
    """A batch in which only unsure jobs are left does not keep its watcher for ever."""
    house = build(workers=1, VOICEQUEUE_CHARGE_LEASE_S="1")
    lose_the_answer(house)
    with house.queue() as queue:
        assert settled(queue)
    assert run(house, "watch", "voices", "--timeout", "5").returncode == 1
