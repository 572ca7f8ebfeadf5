"""`voicequeue doctor` reports what shares the database of a queue."""

from __future__ import annotations

import json
import re
import time

import pytest
from celery import Celery

from tasks.enqueue import ENQUEUE_TASK
from tests.integration.doctor.conftest import Setup
from voicequeue.cli.examine import run_checks
from voicequeue.diagnostics import shared_database
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore


def database_results(setup: Setup, level: str) -> list[str]:
    """Return the results of this level about the database."""
    run_checks(strict=False, as_json=True)
    results = json.loads(setup.capsys.readouterr().out)["checks"]
    return [result["message"] for result in results if (result["check"], result["level"]) == ("database", level)]


def test_other_queues_and_programs_are_reported(setup: Setup, durable: str) -> None:
    """Other queues are fine; other programs are a note."""
    shared, unshared = durable.replace("/0", "/1"), durable.replace("/0", "/2")
    with Celery(broker=shared) as client, connect(shared) as redis, connect(unshared) as another:
        JobStore(redis, "other").heartbeats["worker"].record("w1", time.time())
        redis.set(b"\xff\x1b[2J", "binary")
        client.send_task("theirs", queue="orders")
        client.send_task(ENQUEUE_TASK, queue="{voicequeue}:celery:intake")
        another.set("{voicequeue}:job:1", "")

        setup.env("REDIS_URL", unshared)
        assert database_results(setup, "ok")[0] == "only this queue uses it"
        setup.env("REDIS_URL", shared)
        fine, notes = database_results(setup, "ok"), database_results(setup, "note")

    assert fine[0] == "it contains other queues beside this one: other (1 worker alive)"
    assert re.fullmatch(r"other databases share this Redis's memory \(.*db2: 1 key\)", fine[1])
    assert notes == [
        "1 queue of another Celery application is in this database: orders",
        r"1 key of other programs is in this database: \\xff\x1b[2J",
    ]


def test_jobs_that_no_worker_reads_are_reported(setup: Setup, durable: str) -> None:
    """Their sender omitted the prefix, misspelled it, or named no queue."""
    for root in ("", "{voicequeu}:celery:", "{voicequeue}:celery:"):
        with Celery(broker=durable, broker_transport_options={"global_keyprefix": root}) as client:
            client.send_task(ENQUEUE_TASK, queue="celery" if "queue" in root else "intake")

    assert database_results(setup, "warning") == [
        "messages were sent to a queue voicequeu, which has neither jobs nor processes",
        "1 message with jobs in intake, which no worker reads",
        "1 message with jobs in {voicequeue}:celery:celery, which no worker reads",
    ]
    assert database_results(setup, "note") == []


def test_a_redis_user_of_one_queue_is_sufficient(setup: Setup, durable: str) -> None:
    """An ACL for the queue's keys permits all commands of the doctor."""
    keys = ["{voicequeue}:*"]
    setup.redis.acl_setuser("one", enabled=True, nopass=True, keys=keys, channels=["*"], categories=["+@all"])
    JobStore(setup.redis, "other").heartbeats["worker"].record("w1", time.time())
    setup.redis.rpush("list", "any")
    setup.env("REDIS_URL", durable.replace("//", "//one:any@"))

    assert "other" in database_results(setup, "ok")[0]
    assert database_results(setup, "note") == ["1 key of other programs is in this database: list"]


def test_a_sample_of_many_keys_is_inspected(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result shows the size of the sample."""
    monkeypatch.setattr(shared_database, "SEARCH_S", 0)
    setup.redis.mset({f"{{voicequeue}}:job:{number}": "" for number in range(3 * shared_database.PAGE)})

    [message] = database_results(setup, "ok")

    assert re.search(r"\(1,\d{3} of 3,\d{3} keys were inspected\)", message)
