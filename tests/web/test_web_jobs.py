"""Jobs over HTTP: enqueue one, get it, ETags."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.store.life import NOW, apply_transition, get_job, job_in_state, job_with_song
from tests.support.jobs import LYRICS, URL, numbered_voices, voice, voice_with_song
from tests.web.conftest import Gateway, problem
from voicequeue import Stage, State, VoiceQueue
from voicequeue.domain.claims import ChargedOrder
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway

ORDER: dict[str, Any] = {"audio_url": URL, "song": {"prompt": LYRICS, "title": "A song"}}

# ── enqueue ───────────────────────────────────────────────────────────────────────────────────────


def test_an_enqueued_job_is_returned_with_cost_and_position(gateway: Gateway, queue: VoiceQueue) -> None:
    """The response is 202 with the job as the command line shows it, its estimated credits and its position."""
    queue.enqueue_many(numbered_voices(2))

    answer = gateway.post("/v1/jobs", ORDER)

    assert answer.status_code == 202
    job = answer.json()
    assert (job.pop("estimated_credits"), job.pop("position"), job.pop("further_job_ids")) == (19, 3, [])
    assert job == queue.get(job["id"]).as_dict()
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert gateway("GET", answer.headers["Location"]).headers["ETag"] == answer.headers["ETag"]


def test_the_same_key_and_content_is_the_same_job(gateway: Gateway, queue: VoiceQueue) -> None:
    """The response is 202 the first time and 200 afterwards; the header sets the job's key."""
    answers = [gateway.post("/v1/jobs", ORDER, headers={"Idempotency-Key": "order-7"}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [202, 200]
    assert answers[0].json() == answers[1].json()
    assert queue.enqueue(voice_with_song(key="order-7")).id == answers[0].json()["id"]
    assert queue.status().states[State.QUEUED] == 1


def test_a_job_over_a_hard_budget_is_402_with_what_remains(gateway: Gateway, queue: VoiceQueue) -> None:
    """The response names the budget and its reset; an existing job is returned as before; a row has the reason."""
    first = gateway.post("/v1/jobs", {**ORDER, "key": "first"})
    queue.set_budget("namespace/", day=30, hard=True)

    refused = gateway.post("/v1/jobs", {**ORDER, "key": "second"})
    repeated = gateway.post("/v1/jobs", {**ORDER, "key": "first"})
    rows = gateway(
        "POST", "/v1/batches/b/jobs", data=json.dumps(ORDER), headers={"Content-Type": "application/x-ndjson"}
    )

    assert problem(refused, 402, "budget_exceeded") == {}
    budget = refused.json()["budget"]
    assert "Retry-After" not in refused.headers
    assert budget.pop("resets_at").endswith("T00:00:00.000Z")
    assert budget == {"owner": "namespace/", "period": "day", "price": 19, "limit": 30, "remaining": 11}
    assert (repeated.status_code, repeated.json()["id"]) == (200, first.json()["id"])
    line = json.loads(rows.text.splitlines()[0])
    assert (line["outcome"], line["code"]) == ("rejected", "budget_exceeded")
    assert line["errors"] == [{"field": "", "message": refused.json()["detail"]}]


def test_the_same_key_with_other_content_is_a_conflict_that_names_the_job(gateway: Gateway) -> None:
    """The response is 409, and nothing is enqueued."""
    first = gateway.post("/v1/jobs", ORDER, headers={"Idempotency-Key": "order-7"}).json()

    answer = gateway.post("/v1/jobs", {"audio_url": URL}, headers={"Idempotency-Key": "order-7"})

    assert problem(answer, 409, "key_conflict").keys() == {"key"}
    assert answer.json()["job_id"] == first["id"]


def test_header_and_body_must_have_the_same_key(gateway: Gateway) -> None:
    """A difference is 422."""
    twice = gateway.post("/v1/jobs", {**ORDER, "key": "a"}, headers={"Idempotency-Key": "a"})
    two = gateway.post("/v1/jobs", {**ORDER, "key": "a"}, headers={"Idempotency-Key": "b"})

    assert twice.status_code == 202
    assert problem(two, 422, "invalid").keys() == {"key"}


def test_every_invalid_field_is_named_and_no_value_is_quoted(gateway: Gateway) -> None:
    """Values may be secrets."""
    answer = gateway.post("/v1/jobs", {"audio_url": "s3cr3t", "priority": "s3cr3t", "song": {"title": "x" * 81}})

    assert problem(answer, 422, "invalid").keys() >= {"audio_url", "priority", "song.title"}
    assert "s3cr3t" not in answer.text


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "unreadable"),
        (b'{"start_within_s": NaN}', "application/json", 400, "unreadable"),
        (b"[" * 100_000, "application/json", 400, "unreadable"),
        (b"\xff", "application/json", 400, "unreadable"),
        (b"[]", "application/json", 422, "invalid"),
        (b'{"audio_url": "https://a.example/a.wav", "start_within_s": 1e999}', "application/json", 422, "invalid"),
        (b'{"audio_url": "https://a.example/a.wav", "name": "\\ud800"}', "application/json", 422, "invalid"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"x" * 300_000, "application/json", 413, "too_large"),
    ],
)
def test_an_invalid_body_is_refused_with_its_error(
    gateway: Gateway, body: bytes, kind: str, status: int, code: str
) -> None:
    """The response is always a problem, never a stack trace."""
    answer = gateway("POST", "/v1/jobs", data=body, headers={"Content-Type": kind})

    problem(answer, status, code)


def test_a_body_without_a_length_is_limited_too(gateway: Gateway) -> None:
    """No more than the allowed bytes are read."""
    pieces = (b" " * 65_536 for _ in range(100))

    answer = gateway("POST", "/v1/jobs", data=pieces, headers={"Content-Type": "application/json"})

    problem(answer, 413, "too_large")


def test_the_position_follows_the_order_of_admission(gateway: Gateway, store: JobStore, queue: VoiceQueue) -> None:
    """High is before normal, batches take turns, bulk is last."""
    queue.enqueue_many(numbered_voices(50, batch="large"))
    queue.enqueue(voice(key="h", priority="high"))

    job = gateway.post("/v1/jobs", {**ORDER, "batch": "small"}).json()

    assert job["position"] == 3
    store.admit(time.time(), at_most=2)
    assert get_job(store, job["id"]).state is State.QUEUED
    store.admit(time.time(), at_most=1)
    assert get_job(store, job["id"]).state is State.ADMITTED


# ── one job ───────────────────────────────────────────────────────────────────────────────────────


def test_a_job_is_returned_with_its_timeline(gateway: Gateway, store: JobStore, queue: VoiceQueue) -> None:
    """The response has the result and every transition."""
    job = job_with_song(store)

    details = gateway.get(f"/v1/jobs/{job.id}")

    assert details == {**job.as_dict(), "holds": [], "timeline": [entry.as_dict() for entry in queue.timeline(job.id)]}
    assert len(details["clips"]) == 2


def test_an_etag_is_valid_until_the_next_transition(gateway: Gateway, store: JobStore) -> None:
    """Until then the response is 304 without a body, also for weak tags and lists of tags."""
    job = job_in_state(store, State.ADMITTED)
    path = f"/v1/jobs/{job.id}"
    tag = gateway("GET", path).headers["ETag"]

    headers = [tag, f"W/{tag}", f'"x", {tag}', "*"]
    same = [gateway("GET", path, headers={"If-None-Match": header}) for header in headers]
    apply_transition(store, job, State.CANCELLED)
    changed = gateway("GET", path, headers={"If-None-Match": tag})

    assert [(response.status_code, response.content) for response in same] == [(304, b"")] * 4
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag


def test_a_queued_job_names_its_holds_and_the_etag_changes_with_them(gateway: Gateway, store: JobStore) -> None:
    """A client that polls with `If-None-Match` learns that a budget holds its job, and that it no longer does."""
    path = f"/v1/jobs/{job_in_state(store, State.QUEUED).id}"
    free = gateway("GET", path)
    store.flow_control.set_budget("account", day=18, month=None)
    held_job = gateway("GET", path, headers={"If-None-Match": free.headers["ETag"]})
    store.flow_control.set_budget("account", day=None, month=None)
    freed = gateway("GET", path, headers={"If-None-Match": held_job.headers["ETag"]})

    assert [(hold["reason"], hold["owner"], hold["until"]) for hold in held_job.json()["holds"]] == [
        ("budget_day", "account", None)
    ]
    assert (freed.status_code, freed.json()["holds"]) == (200, [])


def test_an_etag_changes_when_a_charge_is_confirmed_later(gateway: Gateway, store: JobStore) -> None:
    """The state stays, but credits and timeline change."""
    job = job_in_state(store, State.PENDING)
    path = f"/v1/jobs/{job.id}"
    tag = gateway("GET", path).headers["ETag"]

    store.count_order(ChargedOrder(job.id, Stage.VOICE, 7, "t7"), NOW, reason="named")

    response = gateway("GET", path, headers={"If-None-Match": tag})
    assert (response.status_code, response.json()["credits"]) == (200, 8)
    assert response.json()["timeline"][-1]["task_id"] == "t7"


def test_an_unknown_job_is_a_404(gateway: Gateway) -> None:
    """The id may have any form."""
    for job_id in ("nowhere", "%00", "a%20b", "{x}", "😀"):
        problem(gateway("GET", f"/v1/jobs/{job_id}"), 404, "job_not_found")
