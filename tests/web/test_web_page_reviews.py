"""The page of an unsure job: the evidence, and a decision about the order that it shows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.store.life import NOW, apply_transition, claim_admitted, get_job, job_in_state
from tests.web.conftest import Gateway
from tests.web.seen import PageUser
from voicequeue import State
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway


@pytest.fixture
def person(local: Gateway) -> PageUser:
    """Return a user of this machine, where no key is configured."""
    return PageUser(local)


@pytest.mark.parametrize(
    ("button", "fields", "state"),
    [
        ("Confirm charge and continue", {"task_id": "t-1"}, State.PENDING),
        ("Resubmit for 4 credits", {}, State.ADMITTED),
        ("Abandon job", {}, State.FAILED),
    ],
)
def test_an_unsure_job_is_reviewed(
    person: PageUser, store: JobStore, button: str, fields: dict[str, Any], state: State
) -> None:
    """The page shows what happened and the credits at stake."""
    job = job_in_state(store, State.UNSURE)

    page = person.page(f"/job/{job.id}")
    assert f"/job/{job.id}/review" in page.links()
    question = person.page(f"/job/{job.id}/review")
    assert "no answer" in question.text
    person.submit(question, button, **fields)

    assert get_job(store, job.id).state is state


def test_a_review_decides_about_the_order_that_was_read(person: PageUser, store: JobStore) -> None:
    """A form that is sent again, or late, decides about no later order of the job."""
    job = job_in_state(store, State.UNSURE)
    question = person.page(f"/job/{job.id}/review")
    person.submit(question, "Resubmit for 4 credits")
    claim_admitted(store, job.id)
    apply_transition(store, get_job(store, job.id), State.UNSURE)

    person.submit(question, "Resubmit for 4 credits")
    assert "order 1 of job" in person.submit(question, "Abandon job", status=409).text

    assert get_job(store, job.id).state is State.UNSURE
    person.submit(person.page(f"/job/{job.id}/review"), "Abandon job")
    assert get_job(store, job.id).state is State.FAILED


def test_a_review_shows_the_account_balance_before_and_after(person: PageUser, store: JobStore) -> None:
    """If no credits were spent in between, the order was not charged."""
    store.flow_control.record_balance(100, spent_before=0, requested_at=NOW - 20, now=NOW - 19)
    job = job_in_state(store, State.UNSURE)
    store.flow_control.record_balance(100, spent_before=0, requested_at=NOW + 20, now=NOW + 21)

    assert "none of the orders of that time was charged" in person.page(f"/job/{job.id}/review").text


def test_an_invalid_decision_names_the_field(person: PageUser, store: JobStore) -> None:
    """The job does not change."""
    job = job_in_state(store, State.UNSURE)
    question = person.page(f"/job/{job.id}/review")

    missing = person.submit(question, "Confirm charge and continue", status=422)
    unknown = person.submit(question, "Abandon job", status=422, decision="maybe")
    unbound = person.submit(question, "Abandon job", status=422, attempt="")

    assert "is required: MusicAPI's id" in missing.text
    assert "decision: must be" in unknown.text
    assert "attempt: must be" in unbound.text
    assert get_job(store, job.id).state is State.UNSURE
