"""Lists of jobs over HTTP: pages, filters, orders, search."""

from __future__ import annotations

import pytest

from tests.store.life import NOW, apply_transition, enqueue_jobs, fail_job, get_job, job_in_state, job_with_song
from tests.support.jobs import numbered_voices, voice, voice_with_song
from tests.web.conftest import Gateway, problem
from voicequeue import FailureCode, Filter, Song, Stage, State, VoiceQueue
from voicequeue.domain.job import to_iso8601
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway


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


def test_jobs_are_sorted_by_a_time_page_by_page(gateway: Gateway, store: JobStore) -> None:
    """Jobs of all states by their last change, those of a batch by when they were enqueued."""
    created = [enqueue_jobs(store, voice(key=str(number), batch="b"), now=NOW + number)[0] for number in range(3)]
    apply_transition(store, get_job(store, created[0]), State.CANCELLED, NOW + 9)
    changed = [*created[1:], created[0]]

    for order, ids in (("changed", changed), ("-changed", changed[::-1])):
        assert all_of(gateway, f"sort={order}&limit=2") == ids
    for order, ids in (("created", created), ("-created", created[::-1])):
        assert all_of(gateway, f"batch=b&sort={order}&limit=2") == ids
    cursor = gateway.get("/v1/jobs?sort=changed&limit=2")["next_cursor"]
    assert problem(gateway("GET", f"/v1/jobs?cursor={cursor}"), 422, "invalid").keys() == {"cursor"}


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
        ("sort=name", "sort"),
        ("sort=created", "sort"),
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
