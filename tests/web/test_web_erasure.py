"""Erasing a person over HTTP: a dry run, then its token; afterwards the same order is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from redis import Redis

from tests.store.life import CLIPS, NOW, dump_keys, fail_job, job_in_state, job_with_song
from tests.support.jobs import URL, voice
from tests.support.rights import url_with_rights
from tests.web.conftest import Build, Gateway, problem
from voicequeue import FailureCode, Scope, State, VoiceQueue
from voicequeue.client.queue import in_namespace
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore
from workers.gateway.server.connections import ServerLimits

pytestmark = pytest.mark.shared_gateway

PERSON = {"metadata": {"subject": "42"}}


def erased(gateway: Gateway, reason: str = "") -> Any:
    """Erase the person, and return the response."""
    plan = gateway.post("/v1/erase", PERSON).json()
    return gateway.post(f"/v1/erase?reason={reason}", {"token": plan["token"]})


def test_metadata_return_a_plan_and_its_token_erases(gateway: Gateway, store: JobStore, queue: VoiceQueue) -> None:
    """The dry run changes nothing; the certificate is returned again after a lost response, with what is upstream."""
    job = job_with_song(store, key="own", metadata=PERSON["metadata"])
    kept = queue.enqueue(voice(key="kept", audio_url="https://recordings.example/other.wav"))
    plan = gateway.post("/v1/erase", PERSON).json()

    assert (plan["count"], plan["jobs_by_state"], plan["songs"]) == (1, {"succeeded": 1}, len(CLIPS))
    assert queue.get(job.id) == job
    answer = gateway.post("/v1/erase?reason=letter+17", {"token": plan["token"]})
    result = answer.json()
    assert answer.headers["Cache-Control"] == "no-store"
    assert (result["certificate"]["count"], result["certificate"]["actor"]) == (1, "key:all")
    assert set(result["upstream_ids"]) == {"p-1", *job.charged_task_ids.values()}
    assert gateway.post("/v1/erase", {"token": plan["token"]}).json() == result
    assert [remaining.id for remaining in queue.jobs()] == [kept.id]
    [entry] = queue.audit_log(action="erase").items
    assert (entry.actor, entry.jobs, entry.reason) == ("key:all", 1, "letter 17")


def test_an_erased_key_or_recording_is_refused_with_410(gateway: Gateway, queue: VoiceQueue) -> None:
    """As one job, as a row, and as the corrected recording of another job; the error names the cure."""
    queue.enqueue(voice(key="own", **PERSON))
    erased(gateway)

    for body in ({"audio_url": URL}, {"audio_url": "https://recordings.example/other.wav", "key": "own"}):
        answer = gateway.post("/v1/jobs", body)
        assert problem(answer, 410, "erased") == {}
        assert "--allow-key" in answer.json()["detail"]
    rows = json.dumps({"audio_url": URL}) + "\n"
    answer = gateway("POST", "/v1/batches/b/jobs", data=rows, headers={"Content-Type": "application/x-ndjson"})
    [row, summary] = map(json.loads, answer.text.splitlines())
    assert (row["outcome"], summary["summary"]["rejected"]) == ("rejected", 1)
    assert "erased at the request of a person" in row["errors"][0]["message"]


def test_a_key_with_admin_in_a_namespace_erases_there_and_manages_no_keys(
    build_gateway: Build, queue: VoiceQueue
) -> None:
    """Such a key is created as any other, and sees the jobs of its namespace only."""
    gateway = build_gateway(ServerLimits())  # a gateway of its own: it reads keys of Redis at its start
    secret = queue.create_api_key("dpo", [Scope.ADMIN], namespace="shop").secret
    in_namespace(queue, "shop").enqueue(voice(key="theirs", **PERSON))
    kept = queue.enqueue(voice(key="kept", **PERSON))
    own = {"Authorization": f"Bearer {secret}"}

    plan = gateway("POST", "/v1/erase", json=PERSON, headers=own).json()
    assert plan["count"] == 1
    assert gateway("POST", "/v1/erase", json={"token": plan["token"]}, headers=own).json()["certificate"]["count"] == 1
    assert queue.get(kept.id) == kept
    assert gateway("GET", "/v1/keys", headers=own).status_code == 403
    new_key = {"name": "own", "scopes": ["admin"], "namespace": "*"}
    assert gateway("POST", "/v1/keys", json=new_key, headers=own).status_code == 403


def test_a_job_without_consent_is_refused_with_422(gateway: Gateway, store: JobStore) -> None:
    """The error names the field."""
    store.erasure.require_consent(is_required=True)

    assert set(problem(gateway.post("/v1/jobs", {"audio_url": URL}), 422, "invalid")) == {"metadata.consent_ref"}
    assert gateway.post("/v1/jobs", {"audio_url": URL, "metadata": {"consent_ref": "form-17"}}).status_code == 202


def test_a_worker_removes_the_names_that_the_gateway_may_not_remove_from_the_audit_log(
    gateway: Gateway, store: JobStore, queue: VoiceQueue, redis: Redis, valkey_url: str, prefix: str
) -> None:
    """The gateway can only append to the log: the erasure is complete but for that, and the certificate says so."""
    job = fail_job(store, job_in_state(store, State.PENDING, voice(batch="ana-42", **PERSON)), FailureCode.DEADLINE)
    queue.on_behalf_of("cli:ops", reason="ana-42 asked").cancel(queue.retry(job.id).id)

    certificate = erased(gateway).json()["certificate"]
    assert certificate["audit_entries_left"] > 0
    assert any("until a worker has removed them" in sentence for sentence in certificate["remains"])
    assert {key for key, value in dump_keys(redis, prefix).items() if "ana-42" in f"{key} {value}"} == {
        f"{{{prefix}}}:audit_log",
        f"{{{prefix}}}:erased_traces",
    }
    with connect(url_with_rights(valkey_url, "worker", prefix)) as client:
        JobStore(client, prefix).erasure.erase([], NOW)
    assert "ana-42" not in str(dump_keys(redis, prefix))
    assert [entry.actor for entry in queue.audit_log(action="cancel").items] == ["cli:ops"]


@pytest.mark.parametrize("body", [{}, {"metadata": {}}, {"metadata": {"subject": ""}}, {"token": "t", **PERSON}])
def test_an_erasure_needs_either_metadata_or_a_token(gateway: Gateway, queue: VoiceQueue, body: dict[str, Any]) -> None:
    """Without metadata it would concern every job."""
    job = queue.enqueue(voice())

    assert "metadata" in problem(gateway.post("/v1/erase", body), 422, "invalid")
    problem(gateway.post("/v1/erase", {"token": "x" * 22}), 404, "plan_not_found")
    assert queue.get(job.id) == job


def test_a_plan_of_other_changes_erases_nothing(build_gateway: Build, queue: VoiceQueue) -> None:
    """The token of a bulk cancellation is no token of an erasure, nor the other way round."""
    gateway = build_gateway()
    job = queue.enqueue(voice(**PERSON))
    cancellation = gateway.post("/v1/cancel", {"filter": PERSON}).json()["token"]
    erasure = gateway.post("/v1/erase", PERSON).json()["token"]

    problem(gateway.post("/v1/erase", {"token": cancellation}), 404, "plan_not_found")
    problem(gateway.post("/v1/cancel", {"token": erasure}), 404, "plan_not_found")
    assert queue.get(job.id) == job
