"""Forms that are refused come back with what was entered, and with the error beside its field."""

from __future__ import annotations

from typing import Any

import pytest

from tests.store.life import enqueue_jobs, fail_job, job_in_state
from tests.support.jobs import voice_with_song
from tests.web.conftest import KEYS, Build, Gateway
from tests.web.seen import PageUser, ParsedPage
from voicequeue import FailureCode, State
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway


@pytest.fixture
def person(local: Gateway) -> PageUser:
    """Return a user of this machine."""
    return PageUser(local)


def entered(page: ParsedPage, name: str) -> str | None:
    """Return what a field shows that is marked as invalid."""
    [attributes] = [attrs for _, attrs in page.elements if attrs.get("name") == name and "aria-invalid" in attrs]
    described = str(attributes["aria-describedby"]).split()
    assert [attrs["id"] for _, attrs in page.elements if attrs.get("id") in described], "its error is on the page"
    return attributes.get("value")


def focused(page: ParsedPage) -> list[str | None]:
    """Return the names of the fields that get the focus."""
    return [attrs.get("name") for _, attrs in page.elements if "autofocus" in attrs]


def test_limits_come_back_with_every_error(person: PageUser) -> None:
    """The valid field keeps what was entered; the first invalid one gets the focus."""
    fields = {"in_flight": "many", "submit_rate": "12", "min_balance": "few", "reason": "a quiet night"}
    page = person.submit(person.page("/controls"), "Save limits", status=422, **fields)

    assert [entered(page, name) for name in ("in_flight", "min_balance")] == ["many", "few"]
    [form] = [form for form in page.forms if "Save limits" in form["buttons"]]
    assert {name: form["fields"][name] for name in fields} == fields
    assert focused(page) == ["in_flight"]
    assert page.text.count("must be a number") == 2


def test_a_limit_out_of_range_is_marked(person: PageUser) -> None:
    """The store refuses it, not the form."""
    page = person.submit(person.page("/controls"), "Save limits", status=422, in_flight="0")

    assert entered(page, "in_flight") == "0"


def test_limits_of_a_batch_come_back(person: PageUser, store: JobStore) -> None:
    """On the page of the batch, with its jobs."""
    [job_id] = enqueue_jobs(store, voice_with_song(batch="spring"))

    page = person.submit(person.page("/?batch=spring"), "Save limits", status=422, stop_after="200", max_credits="1.5")

    assert [entered(page, name) for name in ("max_credits", "stop_after")] == ["1.5", "200"]
    assert f"/job/{job_id}" in page.links()
    assert not [link for link in page.links() if link.startswith("?")], "links are not relative to the form's address"


def test_a_corrected_recording_comes_back(person: PageUser, store: JobStore) -> None:
    """With the reason for the retry."""
    job = fail_job(store, job_in_state(store, State.CHARGING), FailureCode.REFUSED)
    page = person.page(f"/job/{job.id}/retry")

    page = person.submit(page, "Retry with this recording", status=422, audio_url="ftp://x/1.wav", reason="a typo")

    assert entered(page, "audio_url") == "ftp://x/1.wav"
    assert "a typo" in [form["fields"].get("reason") for form in page.forms]


def test_a_review_without_a_task_comes_back(person: PageUser, store: JobStore) -> None:
    """Nothing is confirmed."""
    job = job_in_state(store, State.UNSURE)

    page = person.submit(person.page(f"/job/{job.id}/review"), "Confirm charge and continue", status=422, task_id=" ")

    assert entered(page, "task_id") == ""
    assert "is required: MusicAPI's id of the task" in page.text


def test_metadata_of_a_person_come_back(person: PageUser) -> None:
    """A field of several lines."""
    page = person.submit(person.page("/erase"), "Show what would be erased", status=422, metadata="subject 42")

    entered(page, "metadata")
    assert "subject 42" in page.text


@pytest.mark.parametrize(
    ("path", "field", "text"),
    [
        ("/audit-log?since=yesterday&actor=page&batch=spring", "since", "yesterday"),
        ("/spend?by=day&since=yesterday", "since", "yesterday"),
    ],
)
def test_a_filter_comes_back(person: PageUser, path: str, field: str, text: str) -> None:
    """The page shows the unfiltered list below it."""
    page = person.page(path, status=422)

    assert entered(page, field) == text


def test_a_key_comes_back_with_every_error(build_gateway: Build) -> None:
    """Checkboxes and choices too."""
    person = PageUser(build_gateway(), "all")
    fields: dict[str, Any] = {
        "name": "shop",
        "scope_operate": "on",
        "requests_per_s": "fast",
        "max_priority": "bulk",
        "budget_day": "some",
        "expires_on": "soon",
    }

    page = person.submit(person.page("/keys/new"), "Create key", status=422, **fields)

    assert [entered(page, name) for name in ("requests_per_s", "budget_day", "expires_on")] == ["fast", "some", "soon"]
    [form] = [form for form in page.forms if "Create key" in form["buttons"]]
    assert form["fields"]["name"] == "shop"
    assert form["fields"]["scope_operate"] == "on"
    assert focused(page) == ["requests_per_s"]
    assert [attrs for tag, attrs in page.elements if tag == "option" and "selected" in attrs]


def test_a_wrong_key_is_marked_and_not_sent_back(build_gateway: Build) -> None:
    """A secret is in no page."""
    gateway = build_gateway()
    answer = gateway._session.post(f"{gateway.url}/login", data={"key": KEYS["all"][0] + "x", "next": "/batches"})

    page = ParsedPage(answer.text)
    assert answer.status_code == 401
    assert entered(page, "key") is None
    assert KEYS["all"][0] not in answer.text
    assert page.forms[0]["fields"]["next"] == "/batches"
