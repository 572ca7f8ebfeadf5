"""Selected rows of the list of jobs are retried or cancelled, exactly these; and the list is downloaded."""

from __future__ import annotations

import csv
import json
from io import StringIO
from typing import Any

import pytest

from tests.store.life import enqueue_jobs, fail_job, get_job, job_in_state, job_with_song
from tests.support.jobs import voice_with_song
from tests.web.conftest import Gateway
from tests.web.seen import PageUser
from voicequeue import FailureCode, Job, State, VoiceQueue
from voicequeue.ingest.export_columns import CSV_COLUMNS
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway


@pytest.fixture
def person(local: Gateway) -> PageUser:
    """Return a user of this machine, who may do everything."""
    return PageUser(local)


def failed(store: JobStore, key: str) -> Job:
    """Return a failed job that was not charged."""
    now = store.clock()  # the audit log has the time of Redis
    charging = job_in_state(store, State.CHARGING, voice_with_song(key=key), now)
    return fail_job(store, charging, FailureCode.REFUSED, now)


def boxes(*jobs: str) -> dict[str, Any]:
    """Return the fields of selected rows."""
    return {f"select-{job}": "on" for job in jobs}


def test_selected_jobs_are_retried_after_a_confirmation(person: PageUser, store: JobStore, queue: VoiceQueue) -> None:
    """The others stay as they are, and the audit log names the jobs."""
    first, second, other = (failed(store, key) for key in "abc")

    plan = person.submit(person.page("/?state=failed"), "Retry selected…", **boxes(first.id, second.id))
    assert "Retry 2 jobs?" in plan.text
    assert get_job(store, first.id).state is State.FAILED
    person.submit(plan, "Retry 2 jobs for up to 38 credits", reason="asked for")

    states = [get_job(store, job.id).state for job in (first, second, other)]
    assert states == [State.QUEUED, State.QUEUED, State.FAILED]
    [entry] = queue.audit_log(job_id=first.id).items
    assert (entry.action, entry.jobs, entry.reason) == ("retry", 2, "asked for")
    assert queue.audit_log(job_id=other.id).items == ()
    text = person.page(f"/job/{first.id}").text
    for part in ("retry by page:local", "up to 38 credits", "with 2 selected jobs", "asked for"):
        assert part in text


def test_selected_jobs_are_cancelled(person: PageUser, store: JobStore) -> None:
    """Those that have settled are left out of the plan."""
    one, other = enqueue_jobs(store, voice_with_song(key="a"), voice_with_song(key="b"))
    done = job_with_song(store, key="done")

    plan = person.submit(person.page("/"), "Cancel selected…", **boxes(one, done.id))
    assert "of 2 those that can be cancelled" in plan.text
    person.submit(plan, "Cancel 1 job")

    assert [get_job(store, job).state for job in (one, other)] == [State.CANCELLED, State.ADMITTED]


def test_without_a_selection_nothing_is_planned(person: PageUser, store: JobStore) -> None:
    """An empty selection is not everything."""
    failed(store, "a")

    assert "No selected job can be retried." in person.submit(person.page("/"), "Retry selected…").text


def test_jobs_of_another_namespace_cannot_be_selected(store: JobStore, queue: VoiceQueue) -> None:
    """They are left out of the plan."""
    [shop] = enqueue_jobs(store.in_namespace("shop"), voice_with_song(key="a"))
    [own] = enqueue_jobs(store, voice_with_song(key="a"))

    assert queue.plan_jobs("cancel", [shop, own, "unknown"]).count == 2
    with VoiceQueue(queue_url(queue), prefix=store._space.prefix, namespace="news") as news:
        assert news.plan_jobs("cancel", [shop, own]).count == 0


def queue_url(queue: VoiceQueue) -> str:
    """Return the URL of the Redis of a queue."""
    options = queue._store._space.redis.connection_pool.connection_kwargs
    return f"redis://{options['host']}:{options['port']}/{options.get('db', 0)}"


def test_a_job_shows_who_decided_what_and_why(person: PageUser, store: JobStore) -> None:
    """With a link to the audit log of this job."""
    job = failed(store, "a")
    assert "No person or program changed this job" in person.page(f"/job/{job.id}").text

    question = person.page(f"/job/{job.id}/retry")
    person.submit(question, "Retry for up to 19 credits", reason="the link works again")

    page = person.page(f"/job/{job.id}")
    for part in ("retry by page:local", "up to 19 credits", "the link works again"):
        assert part in page.text
    assert f"/audit-log?job_id={job.id}" in page.links()
    assert "the link works again" in person.page(f"/audit-log?job_id={job.id}").text
    assert "No changes match" in person.page("/audit-log?job_id=other").text


def test_a_reader_sees_no_decisions_and_no_boxes(gateway: Gateway, store: JobStore) -> None:
    """The audit log needs the scope operate."""
    job = failed(store, "a")
    reader = PageUser(gateway, "read")

    assert "Decisions" not in reader.page(f"/job/{job.id}").text
    assert not [attrs for _, attrs in reader.page("/").elements if attrs.get("type") == "checkbox"]


# ── downloads ─────────────────────────────────────────────────────────────────────────────────────


def downloaded(person: PageUser, path: str) -> str:
    """Return the text of a download."""
    answer = person.session.get(person.url + path, timeout=10)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Disposition"].startswith("attachment; filename=")
    return answer.text


def test_a_download_has_the_jobs_that_the_filter_shows(
    person: PageUser, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several reads, with the columns of the command, and without formulas."""
    monkeypatch.setattr("workers.gateway.page.export.CHUNK", 2)
    ids = enqueue_jobs(store, *(voice_with_song(key=f"k{n}", batch="spring", name="=1+1") for n in range(5)))
    enqueue_jobs(store, voice_with_song(key="other", batch="summer"))
    link = next(link for link in person.page("/?batch=spring").links() if link.startswith("/jobs.csv"))

    rows = list(csv.DictReader(StringIO(downloaded(person, link))))

    assert [row["id"] for row in rows] == ids
    assert tuple(rows[0]) == CSV_COLUMNS
    assert rows[0]["name"] == "'=1+1"


def test_a_download_as_json_lines_has_whole_jobs(person: PageUser, store: JobStore) -> None:
    """One for each line, with the song that was ordered."""
    job = failed(store, "a")
    enqueue_jobs(store, voice_with_song(key="b"))

    [line] = downloaded(person, "/jobs.jsonl?state=failed").splitlines()

    document = json.loads(line)
    assert (document["id"], document["state"]) == (job.id, "failed")
    assert document["song"]["title"]


def test_an_empty_download_has_the_header(person: PageUser) -> None:
    """And an unknown batch is an error page."""
    assert downloaded(person, "/jobs.csv?state=failed").strip() == ",".join(CSV_COLUMNS)
    assert downloaded(person, "/jobs.jsonl") == ""
    assert "no batch" in person.page("/jobs.csv?batch=none", status=404).text


def test_an_unknown_state_never_becomes_all_jobs(person: PageUser, store: JobStore) -> None:
    """Neither in a plan nor in a download: a form or link may come from a release that knows more of them."""
    enqueue_jobs(store, voice_with_song(key="a"))
    token = next(form["fields"]["token"] for form in person.page("/").forms if form["action"] == "/logout")

    for field in ("state", "code"):
        refused = person.post("/do/plan", {"token": token, "action": "cancel", field: "newer"})
        assert (refused.status_code, f"{field}: &#39;newer&#39; is not one of" in refused.text) == (422, True)
        assert "is not one of" in person.page(f"/jobs.csv?{field}=newer", status=422).text
