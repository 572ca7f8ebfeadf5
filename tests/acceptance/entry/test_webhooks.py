"""Orders whose answer was lost: only a webhook or an operator settles them."""

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

from tests.acceptance.conftest import Build, System, jobs, settled, verified_states
from tests.conftest import eventually
from voicequeue import FailureCode, Job, Stage, State, VoiceJob
from voicequeue.auth import signatures

pytestmark = pytest.mark.essential

COUNT = 60

#: Batches of one unsure job each, one per test with a decision.
TO_DECIDE = ("reviewed", "ordered-again", "given-up", "watched")


@pytest.fixture(scope="module")
def gateway(build_shared: Build) -> System:
    """Start a gateway, without a worker yet."""
    return build_shared(workers=0, web=True)


def health(system: System) -> dict[str, int]:
    """Return the statuses of the gateway's health endpoints."""
    return {path: requests.get(f"{system.web}{path}", timeout=10).status_code for path in ("/healthz", "/readyz")}


@pytest.fixture(scope="module")
def without_workers(gateway: System) -> dict[str, int]:
    """Return the gateway's health before there was a worker."""
    return health(gateway)


@pytest.fixture(scope="module")
def shared_system(gateway: System, without_workers: dict[str, int]) -> System:
    """Return the gateway with one worker."""
    assert without_workers
    return replace(gateway, workers=gateway.stack.start_workers(1))


@pytest.fixture
def system(shared_system: System) -> System:
    """Return the system for one test; upstream sends no webhooks by default."""
    shared_system.reset().dial(webhook="never")
    return shared_system


@pytest.fixture(scope="module")
def no_webhooks(build_shared: Build) -> System:
    """Start one worker whose upstream sends no webhooks; the leases of charges are short."""
    return build_shared(workers=1, VOICEQUEUE_SUBMIT_LEASE_S="1", VOICEQUEUE_UNSURE_RESUBMIT_DELAY_S="0.1")


@pytest.fixture(scope="module")
def lost(no_webhooks: System) -> dict[str, Job]:
    """Return jobs, by batch, that are unsure because their worker was killed."""
    return lose_answers(no_webhooks, TO_DECIDE)


def test_webhooks_recover_lost_answers(system: System) -> None:
    """A fifth of all answers is lost after the charge: every job succeeds without help, each paid once."""
    system.dial(post_faults={"reset_after": 0.1, "garbage_after": 0.1}, webhook="once")
    with system.queue() as queue:
        queue.enqueue_many(jobs(COUNT, "recovered"))
        eventually(lambda: queue.batch("recovered").states[State.SUCCEEDED] == COUNT, within_s=60)

    assert sum(system.ledger()["faults"].values()) > 0
    verified_states(system, COUNT, "recovered")


def lose_answers(system: System, batches: Sequence[str]) -> dict[str, Job]:
    """Kill the worker between upstream's answers and the write of the task ids; return the unsure jobs, one per batch.

    The charges are delayed upstream until Valkey stops writing, so the worker has its answers and cannot store them.
    """
    pid = system.supervisor.pid("worker.1")
    assert pid is not None
    with system.queue() as queue, Redis.from_url(system.redis_url) as redis:
        system.dial(latency_s=1)
        queue.enqueue_many(job for batch in batches for job in jobs(1, batch))
        eventually(lambda: len(system.ledger()["charges"]) == len(batches))
        redis.client_pause(60_000, all=False)
        eventually(lambda: all(charge["answered"] for charge in system.ledger()["charges"]))
        eventually(lambda: has_blocked_script(redis, ports_of_tasks(pid)))
        ports = ports_of_tasks(pid)
        os.killpg(pid, signal.SIGKILL)
        eventually(lambda: not has_blocked_script(redis, ports), otherwise="the worker's scripts still wait")
        redis.client_unpause()
        system.dial(latency_s=0)
        eventually(lambda: all(queue.batch(batch).states[State.UNSURE] == 1 for batch in batches), within_s=30)
        unsure = {batch: next(queue.jobs(batch=batch)) for batch in batches}
    assert len(system.ledger()["charges"]) == len(batches)
    return unsure


def charges_of(system: System, job: Job) -> list[dict[str, Any]]:
    """Return upstream's charges for a voice and its song, in order."""
    with system.queue() as queue:
        subjects = (job.spec.audio_url, queue.get(job.id).persona_id)
    return [charge for charge in system.ledger()["charges"] if charge["subject"] in subjects]


def ports_of_tasks(worker: int) -> set[int]:
    """Return the ports of the connections of a worker's children, which run the tasks."""
    return {
        connection.laddr.port
        for child in psutil.Process(worker).children()
        for connection in child.net_connections("tcp")
    }


def has_blocked_script(redis: Redis, ports: set[int]) -> bool:
    """Return whether a client on one of these ports has a script that is blocked."""
    clients = (client for client in redis.client_list() if "b" in client["flags"] and client["cmd"].startswith("eval"))
    return any(int(client["addr"].rpartition(":")[2]) in ports for client in clients)


def test_a_webhook_recovers_an_order_whose_worker_was_killed_before_it_stored_the_task_id(system: System) -> None:
    """The webhook arrives after the job became unsure, states the task id, and the job continues."""
    job = lose_answers(system, ["killed"])["killed"]
    [charge] = charges_of(system, job)

    assert webhook_of(system, job, charge["task_id"]) == 200

    with system.queue() as queue:
        eventually(lambda: queue.batch("killed").states[State.SUCCEEDED] == 1, within_s=60)
        assert "task id from a webhook" in [step.reason for step in queue.timeline(job.id)]

    verified_states(system, 1, "killed")


def webhook_of(system: System, job: Job, task_id: str) -> int:
    """Send the webhook of a job's first order, as upstream does; return the status."""
    secret = (system.home / "secret").read_text()
    token = signatures.webhook_token(secret, job.id, Stage.VOICE, 1)
    body = json.dumps({"task_id": task_id, "state": "succeeded"}).encode()
    path = f"/hooks/musicapi/{job.id}/voice?attempt=1&token={token}"
    return send(system, path, body, signed(secret, job.id, body, time.time()))


def test_a_lost_order_that_a_webhook_names_after_a_resubmission_is_used_or_counted(system: System) -> None:
    """If it was not sent again, nothing is. If it was, both charges are counted. If it expired meanwhile, a retry pays
    nothing.

    In each case the job's credits equal upstream's charges for it.
    """
    system.dial(post_faults={"reset_after": 1})
    urls = {name: voice_job(name).audio_url for name in ("waits", "sent", "late")}
    with system.queue() as queue, Redis.from_url(system.redis_url) as redis:
        spent_before = queue.status().credits
        waiting, resubmitted, expired = (queue.enqueue(voice_job(name)).id for name in urls)
        eventually(lambda: queue.batch("late").states[State.UNSURE] == 3)
        charges = {charge["subject"]: charge["task_id"] for charge in system.ledger()["charges"]}
        first = dict(zip((waiting, resubmitted, expired), (charges[url] for url in urls.values()), strict=True))
        system.dial(post_faults={})
        queue.pause()
        for job_id in (waiting, expired):
            queue.resubmit(job_id)
        eventually(lambda: queue.batch("late").states[State.QUEUED] == 2)
        redis.zadd(f"{{{system.prefix}}}:start_by", {expired: time.time()})  # its start time has passed
        eventually(lambda: queue.get(expired).state is State.FAILED)
        for job_id in (waiting, expired):
            assert webhook_of(system, queue.get(job_id), first[job_id]) == 200
        eventually(lambda: queue.get(waiting).state is State.SUCCEEDED and queue.get(expired).persona_id)
        queue.resume()
        queue.resubmit(resubmitted)
        eventually(lambda: queue.get(resubmitted).state is State.SUCCEEDED)
        for _ in range(2):
            assert webhook_of(system, queue.get(resubmitted), first[resubmitted]) == 200

        failure = queue.get(expired).failure
        assert failure is not None
        assert "may have been charged" in failure.message
        assert queue.retry(expired).state is State.SUCCEEDED
        assert [queue.get(job_id).credits for job_id in (waiting, resubmitted, expired)] == [4, 8, 4]
        assert queue.status().credits - spent_before == system.ledger()["credits_spent"] == 16
        assert queue.timeline(resubmitted)[-1].task_id == first[resubmitted]


def voice_job(name: str) -> VoiceJob:
    """Return a voice job with this name, which must start within an hour."""
    url = f"https://recordings.example/{name}.wav"
    return VoiceJob(audio_url=url, batch="late", key=name, start_within_s=3600)


def test_a_failure_that_upstream_withdraws_costs_nothing(system: System) -> None:
    """After one report the job stays pending; after two it fails, and a retry polls before it pays."""
    system.dial(get_faults={"false_failure": 1})
    with system.queue() as queue:
        queue.enqueue_many(jobs(1, "withdrawn"))
        eventually(lambda: queue.batch("withdrawn").states[State.FAILED] == 1, within_s=30)
        [job] = queue.jobs(batch="withdrawn")
        assert job.failure is not None
        assert job.failure.code is FailureCode.UPSTREAM_FAILED
        assert system.logs().count("upstream reported a failure") == 1
        system.dial(get_faults={})

        assert system.run("retry", job.id, "--yes").returncode == 0

        eventually(lambda: queue.batch("withdrawn").states[State.SUCCEEDED] == 1, within_s=30)
    verified_states(system, 1, "withdrawn")
    assert [charge["kind"] for charge in system.ledger()["charges"]] == ["voice", "music"]


@pytest.mark.endurance
def test_without_webhooks_an_operator_reviews_it_and_nothing_resubmits_it(
    no_webhooks: System, lost: dict[str, Job]
) -> None:
    """`review` shows it; with the task id it continues, without another charge for its voice."""
    job = lost["reviewed"]
    [charge] = charges_of(no_webhooks, job)

    listed = json.loads(no_webhooks.run("review", "--json").stdout)
    assert [(row["stage"], row["reason"]) for row in listed if row["id"] == job.id] == [
        ("voice", "the worker died while charging")
    ]
    assert no_webhooks.run("review", job.id, "--resubmit").returncode != 0  # needs --yes
    assert charges_of(no_webhooks, job) == [charge]
    confirmed = json.loads(no_webhooks.run("review", job.id, "--task-id", charge["task_id"], "--json").stdout)

    assert confirmed["state"] == "pending"
    with no_webhooks.queue() as queue:
        eventually(lambda: queue.get(job.id).state is State.SUCCEEDED, within_s=60)
        finished = queue.get(job.id)
    assert finished.clips
    assert [row["kind"] for row in charges_of(no_webhooks, finished)] == ["voice", "music"]
    assert finished.credits == sum(row["credits"] for row in charges_of(no_webhooks, finished))


@pytest.mark.endurance
def test_a_resubmission_by_an_operator_is_on_the_timeline(no_webhooks: System, lost: dict[str, Job]) -> None:
    """A second charge exists only because an operator decided so."""
    job = lost["ordered-again"]
    assert no_webhooks.run("review", job.id, "--resubmit", "--yes").returncode == 0

    assert reason_of_resubmission(no_webhooks, job) == "resubmitted by an operator"


@pytest.mark.endurance
def test_a_resubmission_by_the_policy_is_on_the_timeline(build: Build) -> None:
    """A second charge exists only because the policy is set; then nothing is left to review."""
    system = build(
        workers=1,
        VOICEQUEUE_SUBMIT_LEASE_S="1",
        VOICEQUEUE_UNSURE_POLICY="resubmit",
        VOICEQUEUE_UNSURE_RESUBMIT_DELAY_S="1",
    )
    [job] = lose_answers(system, ["policy"]).values()

    assert reason_of_resubmission(system, job) == "resubmitted by policy"
    assert system.run("review").stdout.strip() == "no unsure jobs"


def reason_of_resubmission(system: System, job: Job) -> str:
    """Wait until a job with a lost answer succeeds after one resubmission; return the timeline's reason for it."""
    with system.queue() as queue:
        eventually(lambda: queue.get(job.id).state is State.SUCCEEDED, within_s=60)
        reasons = [step.reason for step in queue.timeline(job.id)]
    voices = [charge for charge in charges_of(system, job) if charge["kind"] == "voice"]
    assert len(voices) == 2
    [reason] = [reason for reason in reasons if "resubmitted" in reason]
    return reason


@pytest.mark.endurance
def test_giving_up_is_a_failure_of_its_own_code(no_webhooks: System, lost: dict[str, Job]) -> None:
    """`--abandon` ends the job; its unknown credits are not counted."""
    job = lost["given-up"]

    abandoned = json.loads(no_webhooks.run("review", job.id, "--abandon", "--json").stdout)

    assert (abandoned["state"], abandoned["failure"]["code"], abandoned["credits"]) == ("failed", "abandoned", 0)
    assert job.id not in no_webhooks.run("review", "--json").stdout


def send(system: System, path: str, body: bytes, headers: dict[str, str]) -> int:
    """POST to the gateway; return the status."""
    return requests.post(f"{system.web}{path}", data=body, headers=headers, timeout=10).status_code


def signed(secret: str, job_id: str, body: bytes, at: float) -> dict[str, str]:
    """Return headers as upstream sends them."""
    timestamp = str(int(at))
    key = signatures.webhook_secret(secret, job_id)
    return {
        "X-Webhook-Timestamp": timestamp,
        "X-Webhook-Signature": signatures.sign_as_upstream(key, timestamp, body),
    }


def test_a_forged_replayed_altered_or_oversized_webhook_changes_nothing(system: System) -> None:
    """401, 413 or 404 before the body is used; the job is unchanged, and the genuine webhook is accepted."""
    system.dial(voice_s=600)
    with system.queue() as queue:
        queue.enqueue_many(jobs(1, "forged"))
        eventually(lambda: queue.batch("forged").states[State.PENDING] == 1)
        [before] = queue.jobs(batch="forged")
    secret = (system.home / "secret").read_text()
    body, now = b'{"task_id": "another"}', time.time()
    good = signed(secret, before.id, body, now)

    def path(job_id: str = before.id, *, token: str | None = None, attempt: int = 1) -> str:
        valid_token = signatures.webhook_token(secret, job_id, Stage.VOICE, attempt)
        return f"/hooks/musicapi/{job_id}/voice?attempt={attempt}&token={token or valid_token}"

    statuses: dict[str, Any] = {
        "a forged token": send(system, path(token="0" * 40), body, good),
        "no token": send(system, f"/hooks/musicapi/{before.id}/voice", body, good),
        "another attempt's token": send(system, path().replace("attempt=1", "attempt=2"), body, good),
        "no signature": send(system, path(), body, {}),
        "a forged signature": send(system, path(), body, signed("wrong", before.id, body, now)),
        "an altered body": send(system, path(), body + b" ", good),
        "a replay": send(system, path(), body, signed(secret, before.id, body, now - 301)),
        "too large": send(system, path(), b"x" * 300_000, good),
        "an unknown job": send(system, path("nosuchjob"), body, signed(secret, "nosuchjob", body, now)),
    }

    assert statuses == dict.fromkeys(statuses, 401) | {"too large": 413, "an unknown job": 404}
    with system.queue() as queue:
        assert queue.get(before.id) == before
    assert send(system, path(), body, good) == 200
    assert send(system, path(), body, good) == 200  # a repetition does no harm
    with system.queue() as queue:
        assert queue.get(before.id).task_ids == before.task_ids
        queue.cancel(before.id)


def test_the_gateway_reports_health_and_readiness(without_workers: dict[str, int], system: System) -> None:
    """Healthy without workers; ready after a heartbeat."""
    assert without_workers == {"/healthz": 200, "/readyz": 503}

    eventually(lambda: health(system) == {"/healthz": 200, "/readyz": 200})


@pytest.mark.endurance
def test_a_batch_of_unsure_jobs_counts_as_settled(no_webhooks: System, lost: dict[str, Job]) -> None:
    """`watch` ends when a batch has only unsure jobs left."""
    with no_webhooks.queue() as queue:
        assert queue.get(lost["watched"].id).state is State.UNSURE
        assert settled(queue, "watched")
    assert no_webhooks.run("watch", "--batch", "watched", "--timeout", "5").returncode == 1
