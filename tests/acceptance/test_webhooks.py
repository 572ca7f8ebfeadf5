"""An order whose answer was lost: a webhook settles it, or a person does; nothing else ever does."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import psutil
import pytest
import requests
from redis import Redis

from tests.acceptance.conftest import Build, House, jobs, nothing_lost_nothing_paid_twice, settled
from tests.acceptance.test_pipeline import run
from tests.conftest import eventually
from voicequeue import Code, Job, Stage, State, VoiceJob
from voicequeue.auth import signatures

COUNT = 60

#: Jobs of which somebody decides: one for each test, each a batch of its own.
TO_DECIDE = ("reviewed", "ordered-again", "given-up", "watched")


@pytest.fixture(scope="module")
def gateway(build_for_all: Build) -> House:
    """The gateway, to which webhooks come, and no worker yet."""
    return build_for_all(workers=0, web=True)


def health(house: House) -> dict[str, int]:
    """The statuses of what the gateway says of itself."""
    return {path: requests.get(f"{house.web}{path}", timeout=10).status_code for path in ("/healthz", "/readyz")}


@pytest.fixture(scope="module")
def without_workers(gateway: House) -> dict[str, int]:
    """What the gateway said of itself before there was a worker."""
    return health(gateway)


@pytest.fixture(scope="module")
def standing(gateway: House, without_workers: dict[str, int]) -> House:
    """The gateway and one worker."""
    assert without_workers
    return replace(gateway, workers=gateway.stack.start_workers(1))


@pytest.fixture
def house(standing: House) -> House:
    """The house for one test; upstream sends no webhooks unless the test says so."""
    standing.renew().dial(webhook="never")
    return standing


@pytest.fixture(scope="module")
def deaf(build_for_all: Build) -> House:
    """One worker, whose upstream sends no webhooks; a charge is soon not trusted any more."""
    return build_for_all(workers=1, VOICEQUEUE_CHARGE_LEASE_S="1", VOICEQUEUE_UNSURE_GRACE_S="0.1")


@pytest.fixture(scope="module")
def lost(deaf: House) -> dict[str, Job]:
    """Jobs that are unsure since their worker died, by batch."""
    return lose_the_answers(deaf, TO_DECIDE)


def test_lost_answers_are_found_again_by_webhooks(house: House) -> None:
    """A fifth of all answers is lost after the charge: every job succeeds by itself, each paid once."""
    house.dial(post_faults={"reset_after": 0.1, "garbage_after": 0.1}, webhook="once")
    with house.queue() as queue:
        queue.enqueue_many(jobs(COUNT, "found-again"))
        eventually(lambda: queue.batch("found-again").states[State.SUCCEEDED] == COUNT, within_s=60)

    assert sum(house.ledger()["faults"].values()) > 0
    nothing_lost_nothing_paid_twice(house, COUNT, "found-again")


def lose_the_answers(house: House, batches: Sequence[str]) -> dict[str, Job]:
    """Let the worker die when it has upstream's answers and is about to write the task ids; gives the jobs, unsure by
    now: one in each batch.

    The charges are held up on their way until Valkey writes nothing any more; so the worker has its answers and can
    do nothing with them.
    """
    pid = house.supervisor.pid("worker.1")
    assert pid is not None
    with house.queue() as queue, Redis.from_url(house.redis_url) as redis:
        house.dial(latency_s=1)
        queue.enqueue_many(job for batch in batches for job in jobs(1, batch))
        eventually(lambda: len(house.ledger()["charges"]) == len(batches))
        redis.client_pause(60_000, all=False)
        eventually(lambda: all(charge["answered"] for charge in house.ledger()["charges"]))
        eventually(lambda: held(redis, ports_of_tasks(pid)))
        ports = ports_of_tasks(pid)
        os.killpg(pid, signal.SIGKILL)
        eventually(lambda: not held(redis, ports), otherwise="Valkey would still do what the worker has sent")
        redis.client_unpause()
        house.dial(latency_s=0)
        eventually(lambda: all(queue.batch(batch).states[State.UNSURE] == 1 for batch in batches), within_s=30)
        found = {batch: next(queue.jobs(batch=batch)) for batch in batches}
    assert len(house.ledger()["charges"]) == len(batches)
    return found


def charges_of(house: House, job: Job) -> list[dict[str, Any]]:
    """What upstream has taken for a voice and its song, in order."""
    with house.queue() as queue:
        subjects = (job.spec.audio_url, queue.get(job.id).persona_id)
    return [charge for charge in house.ledger()["charges"] if charge["subject"] in subjects]


def ports_of_tasks(worker: int) -> set[int]:
    """The ports from which the children of a worker, where the tasks run, are connected."""
    return {
        connection.laddr.port
        for child in psutil.Process(worker).children()
        for connection in child.net_connections("tcp")
    }


def held(redis: Redis, ports: set[int]) -> bool:
    """Whether one that is connected from there has sent a script that is held up."""
    clients = (client for client in redis.client_list() if "b" in client["flags"] and client["cmd"].startswith("eval"))
    return any(int(client["addr"].rpartition(":")[2]) in ports for client in clients)


def test_a_worker_that_dies_before_it_writes_the_task_id_is_helped_by_a_webhook(house: House) -> None:
    """The webhook comes after the job went unsure, tells the task id, and the job goes on by itself."""
    job = lose_the_answers(house, ["helped"])["helped"]
    [charge] = charges_of(house, job)

    assert webhook_of(house, job, charge["task_id"]) == 200

    with house.queue() as queue:
        eventually(lambda: queue.batch("helped").states[State.SUCCEEDED] == 1, within_s=60)
        assert "a webhook told the task id" in [step.reason for step in queue.timeline(job.id)]

    nothing_lost_nothing_paid_twice(house, 1, "helped")


def webhook_of(house: House, job: Job, task_id: str) -> int:
    """Send the webhook of a job's first order, as upstream does; its status."""
    secret = (house.home / "secret").read_text()
    token = signatures.webhook_token(secret, job.id, Stage.VOICE, 1)
    body = json.dumps({"task_id": task_id, "state": "succeeded"}).encode()
    path = f"/hooks/musicapi/{job.id}/voice?attempt=1&token={token}"
    return send(house, path, body, signed(secret, job.id, body, time.time()))


def test_a_lost_order_that_a_webhook_names_after_it_was_ordered_again_is_used_or_counted(house: House) -> None:
    """Not sent again yet: nothing is. Sent again: both charges are counted. Expired meanwhile: a retry pays nothing.

    In each case the credits of the job are those that upstream took for it.
    """
    house.dial(post_faults={"reset_after": 1})
    waits, sent, late = (voice_job(name) for name in ("waits", "sent", "late"))
    with house.queue() as queue, Redis.from_url(house.redis_url) as redis:
        spent_before = queue.status().credits
        queue.enqueue_many([waits, sent, late])
        eventually(lambda: queue.batch("late").states[State.UNSURE] == 3)
        first = {charge["subject"]: charge["task_id"] for charge in house.ledger()["charges"]}
        house.dial(post_faults={})
        queue.pause()
        for job in (waits, late):
            queue.order_again(job.id())
        eventually(lambda: queue.batch("late").states[State.QUEUED] == 2)
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
        assert queue.status().credits - spent_before == house.ledger()["credits_spent"] == 16
        assert queue.timeline(sent.id())[-1].task_id == first[sent.audio_url]


def voice_job(name: str) -> VoiceJob:
    """A voice of that name, which must have begun within an hour."""
    url = f"https://recordings.example/{name}.wav"
    return VoiceJob(audio_url=url, batch="late", key=name, start_within_s=3600)


def test_a_failure_that_upstream_takes_back_costs_nothing(house: House) -> None:
    """Said once, the job waits; said again, it fails, and a retry asks before it pays."""
    house.dial(get_faults={"false_failure": 1})
    with house.queue() as queue:
        queue.enqueue_many(jobs(1, "taken-back"))
        eventually(lambda: queue.batch("taken-back").states[State.FAILED] == 1, within_s=30)
        [job] = queue.jobs(batch="taken-back")
        assert job.failure is not None
        assert job.failure.code is Code.UPSTREAM_FAILED
        assert house.logs().count("upstream says that it failed") == 1
        house.dial(get_faults={})

        assert run(house, "retry", job.id, "--yes").returncode == 0

        eventually(lambda: queue.batch("taken-back").states[State.SUCCEEDED] == 1, within_s=30)
    nothing_lost_nothing_paid_twice(house, 1, "taken-back")
    assert [charge["kind"] for charge in house.ledger()["charges"]] == ["voice", "music"]


def test_without_webhooks_a_person_reviews_it_and_nothing_orders_it_again(deaf: House, lost: dict[str, Job]) -> None:
    """`review` shows it; given the task id it goes on, without another charge for its voice."""
    job = lost["reviewed"]
    [charge] = charges_of(deaf, job)

    listed = json.loads(run(deaf, "review", "--json").stdout)
    assert [(each["stage"], each["reason"]) for each in listed if each["id"] == job.id] == [
        ("voice", "the worker died while charging")
    ]
    assert run(deaf, "review", job.id, "--resubmit").returncode != 0  # nobody answered the question
    assert charges_of(deaf, job) == [charge]
    taken = json.loads(run(deaf, "review", job.id, "--task-id", charge["task_id"], "--json").stdout)

    assert taken["state"] == "pending"
    with deaf.queue() as queue:
        eventually(lambda: queue.get(job.id).state is State.SUCCEEDED, within_s=60)
        done = queue.get(job.id)
    assert done.clips
    assert [each["kind"] for each in charges_of(deaf, done)] == ["voice", "music"]
    assert done.credits == sum(each["credits"] for each in charges_of(deaf, done))


def test_ordering_again_is_a_decision_that_stands_on_the_timeline(deaf: House, lost: dict[str, Job]) -> None:
    """A second charge exists only because somebody said so."""
    job = lost["ordered-again"]
    assert run(deaf, "review", job.id, "--resubmit", "--yes").returncode == 0

    assert reason_of_the_second_order(deaf, job) == "somebody ordered it again"


def test_the_policy_orders_again_and_says_so_on_the_timeline(build: Build) -> None:
    """A second charge exists only because whoever set it said so; then nothing is left to decide."""
    house = build(
        workers=1,
        VOICEQUEUE_CHARGE_LEASE_S="1",
        VOICEQUEUE_UNSURE="resubmit",
        VOICEQUEUE_UNSURE_GRACE_S="1",
    )
    [job] = lose_the_answers(house, ["policy"]).values()

    assert reason_of_the_second_order(house, job) == "the policy ordered it again"
    assert run(house, "review").stdout.strip() == "no job is unsure"


def reason_of_the_second_order(house: House, job: Job) -> str:
    """Why a job whose answer was lost was ordered again, once; it succeeds."""
    with house.queue() as queue:
        eventually(lambda: queue.get(job.id).state is State.SUCCEEDED, within_s=60)
        reasons = [step.reason for step in queue.timeline(job.id)]
    voices = [charge for charge in charges_of(house, job) if charge["kind"] == "voice"]
    assert len(voices) == 2
    [reason] = [reason for reason in reasons if "ordered it again" in reason]
    return reason


def test_giving_up_is_a_failure_of_its_own_code(deaf: House, lost: dict[str, Job]) -> None:
    """`--abandon` ends the job; its credits are counted by nobody, for nobody knows."""
    job = lost["given-up"]

    given_up = json.loads(run(deaf, "review", job.id, "--abandon", "--json").stdout)

    assert (given_up["state"], given_up["failure"]["code"], given_up["credits"]) == ("failed", "abandoned", 0)
    assert job.id not in run(deaf, "review", "--json").stdout


def send(house: House, path: str, body: bytes, headers: dict[str, str]) -> int:
    """POST to the gateway; its status."""
    return requests.post(f"{house.web}{path}", data=body, headers=headers, timeout=10).status_code


def signed(secret: str, job_id: str, body: bytes, at: float) -> dict[str, str]:
    """Headers as upstream sends them."""
    timestamp = str(int(at))
    key = signatures.webhook_secret(secret, job_id)
    return {
        "X-Webhook-Timestamp": timestamp,
        "X-Webhook-Signature": signatures.upstream_signature(key, timestamp, body),
    }


def test_what_is_forged_replayed_altered_or_too_large_changes_nothing(house: House) -> None:
    """401, 413 or 404 before anything is believed; the job stays as it is, and the right one is taken."""
    house.dial(voice_s=600)
    with house.queue() as queue:
        queue.enqueue_many(jobs(1, "forged"))
        eventually(lambda: queue.batch("forged").states[State.PENDING] == 1)
        [before] = queue.jobs(batch="forged")
    secret = (house.home / "secret").read_text()
    body, now = b'{"task_id": "another"}', time.time()
    good = signed(secret, before.id, body, now)

    def path(job_id: str = before.id, *, token: str | None = None, attempt: int = 1) -> str:
        made = signatures.webhook_token(secret, job_id, Stage.VOICE, attempt)
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
        queue.cancel(before.id)


def test_the_gateway_says_whether_it_is_alive_and_ready(without_workers: dict[str, int], house: House) -> None:
    """Alive without workers; ready once a pulse was heard; not ready without Redis."""
    assert without_workers == {"/healthz": 200, "/readyz": 503}

    eventually(lambda: health(house) == {"/healthz": 200, "/readyz": 200})


def test_settled_says_unsure_counts_as_resting(deaf: House, lost: dict[str, Job]) -> None:
    """A batch in which only unsure jobs are left does not keep its watcher for ever."""
    with deaf.queue() as queue:
        assert queue.get(lost["watched"].id).state is State.UNSURE
        assert settled(queue, "watched")
    assert run(deaf, "watch", "--batch", "watched", "--timeout", "5").returncode == 1
