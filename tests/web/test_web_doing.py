"""What the pages do: each asks first and says how many and what it costs, and only who may operate is asked."""

from __future__ import annotations

from typing import Any

import pytest

from tests.store.life import NOW, brought_to, failed, one, put
from tests.support.jobs import sung
from tests.web.conftest import KEYS, Build, Gateway
from tests.web.seen import Person, logged_in
from voicequeue import Code, Job, Stage, State
from voicequeue.storage.job_store import Store


@pytest.fixture
def person(local: Gateway) -> Person:
    """A person at this machine, where no key is configured."""
    return Person(local)


def refused(store: Store, **fields: str) -> Job:
    """A job whose voice upstream refused, unpaid."""
    return failed(store, brought_to(store, State.CHARGING, sung(**fields)), Code.REFUSED)


# ── one job ───────────────────────────────────────────────────────────────────────────────────────


def test_a_failed_job_is_retried_when_somebody_has_seen_what_it_costs(person: Person, store: Store) -> None:
    """Nothing happens before."""
    job = refused(store)

    page = person.page(f"/job/{job.id}")
    assert f"/job/{job.id}/retry" in page.links()
    question = person.page(f"/job/{job.id}/retry")
    assert one(store, job.id).state is State.FAILED
    assert "up to 19 credits" in question.text
    answer = person.submit(question, "Retry, for up to 19 credits")

    assert one(store, job.id).state is State.QUEUED
    assert "The job is queued now." in answer.text
    assert "The job is queued now." not in person.page(f"/job/{job.id}").text


def test_what_was_charged_before_is_said_to_be_charged_again(person: Person, store: Store) -> None:
    """In so many credits; and that MusicAPI is asked first, where it has an order."""
    job = failed(store, brought_to(store, State.PENDING), Code.UPSTREAM_FAILED)
    given_up = failed(store, brought_to(store, State.UNSURE, sung(key="other")), Code.ABANDONED)

    asked_first, ordered = (person.page(f"/job/{each.id}/retry").text for each in (job, given_up))
    assert all("charged again: 4 credits" in text for text in (asked_first, ordered))
    assert ["asked once more" in text for text in (asked_first, ordered)] == [True, False]


@pytest.mark.parametrize(
    ("button", "becomes"),
    [("Retry, for up to 15 credits", State.PENDING), ("Order the voice anew, for up to 19 credits", State.QUEUED)],
)
def test_what_upstream_has_is_asked_for_again_unless_somebody_wants_to_pay_anew(
    person: Person, store: Store, button: str, becomes: State
) -> None:
    """Two buttons, each with its price."""
    job = failed(store, brought_to(store, State.PENDING), Code.DEADLINE)

    person.submit(person.page(f"/job/{job.id}/retry"), button)

    assert one(store, job.id).state is becomes


def test_a_job_is_cancelled_when_somebody_has_said_yes(person: Person, store: Store) -> None:
    """And is told that what upstream works on stays paid."""
    job = brought_to(store, State.PENDING)

    question = person.page(f"/job/{job.id}/cancel")
    assert "stays paid" in question.text
    person.submit(question, "Cancel the job")

    assert one(store, job.id).state is State.CANCELLED


def test_a_job_that_is_being_charged_is_marked(person: Person, store: Store) -> None:
    """With why it is not cancelled at once; many by a plan as well."""
    job, other = (brought_to(store, State.CHARGING, sung(batch="b", key=key)) for key in "ab")

    question = person.page(f"/job/{job.id}/cancel")
    assert "is being ordered" in question.text
    answer = person.submit(question, "Cancel the job")
    assert "No further stage is ordered for it" in answer.text
    assert "to be cancelled" in person.page("/?batch=b").text
    plan = person.submit(person.page("/?batch=b"), "Cancel these…")
    assert "1 are being charged, or unsure" in plan.text
    told = person.submit(plan, "Cancel 1 job").text

    assert "0 of 1 jobs are cancelled. 1 are being charged or unsure: no further stage is ordered" in told
    assert all(one(store, each.id).cancelling for each in (job, other))


@pytest.mark.parametrize(
    ("button", "fields", "becomes"),
    [
        ("Take the task up, for nothing more", {"task_id": "t-1"}, State.PENDING),
        ("Order it again, for 4 credits", {}, State.ADMITTED),
        ("Give it up", {}, State.FAILED),
    ],
)
def test_an_unsure_job_is_reviewed(
    person: Person, store: Store, button: str, fields: dict[str, Any], becomes: State
) -> None:
    """With what happened, and what is at stake."""
    job = brought_to(store, State.UNSURE)

    page = person.page(f"/job/{job.id}")
    assert f"/job/{job.id}/review" in page.links()
    question = person.page(f"/job/{job.id}/review")
    assert "no answer" in question.text
    person.submit(question, button, **fields)

    assert one(store, job.id).state is becomes


def test_what_the_account_knows_of_an_unsure_job_is_shown(person: Person, store: Store) -> None:
    """Nothing left it meanwhile: it was not charged."""
    store.controls.note_balance(100, spent_before=0, asked=NOW - 20, now=NOW - 19)
    job = brought_to(store, State.UNSURE)
    store.controls.note_balance(100, spent_before=0, asked=NOW + 20, now=NOW + 21)

    assert "none of the orders of that time was charged" in person.page(f"/job/{job.id}/review").text


@pytest.mark.parametrize("action", ["retry", "cancel", "review"])
def test_what_cannot_be_done_to_a_job_is_not_offered(person: Person, store: Store, action: str) -> None:
    """And says why to who asks for it anyway."""
    job = brought_to(store, State.SUCCEEDED)

    assert not [link for link in person.page(f"/job/{job.id}").links() if link.endswith(action)]
    assert "succeeded" in person.page(f"/job/{job.id}/{action}", status=409).text
    assert person.page(f"/job/{job.id}/{action}", status=409).links()
    assert "no job" in person.page(f"/job/none/{action}", status=404).text


def test_a_verdict_that_misses_something_names_it(person: Person, store: Store) -> None:
    """Nothing happens to the job."""
    job = brought_to(store, State.UNSURE)
    question = person.page(f"/job/{job.id}/review")

    missing = person.submit(question, "Take the task up, for nothing more", status=422)
    unknown = person.submit(question, "Give it up", status=422, verdict="maybe")

    assert "task_id: is needed" in missing.text
    assert "verdict: must be" in unknown.text
    assert one(store, job.id).state is State.UNSURE


def test_a_callback_that_was_given_up_is_delivered_again(person: Person, store: Store) -> None:
    """The job's page tells why it was."""
    job = brought_to(store, State.SUCCEEDED, sung(callback_url="https://hooks.example/told"))
    [callback] = store.callbacks.pending()
    store.callbacks.give_up(callback.id, NOW, "410 Gone", tried=True)

    page = person.page(f"/job/{job.id}")
    assert all(part in page.text for part in ("https://hooks.example/told", "undelivered", "410 Gone"))
    answer = person.submit(page, "Deliver it now")

    assert "to be delivered" in answer.text
    assert not list(store.callbacks.undelivered())
    store.callbacks.delivered(callback.id, NOW)
    assert "The last callback was delivered." in person.page(f"/job/{job.id}").text


# ── many jobs ─────────────────────────────────────────────────────────────────────────────────────


def test_many_failed_jobs_are_retried_by_a_plan(person: Person, store: Store) -> None:
    """Exactly those of the filter; the plan tells how many and what they may cost."""
    some = [refused(store, batch="spring", key=f"s{n}") for n in range(3)]
    other = refused(store, batch="summer", key="o")
    lost = failed(store, brought_to(store, State.PENDING, sung(batch="spring", key="l")), Code.UPSTREAM_FAILED)

    page = person.page("/?batch=spring&state=failed&code=refused")
    plan = person.submit(page, "Retry those that failed…")
    assert "Retry 3 jobs?" in plan.text
    assert "up to 57 credits" in plan.text
    assert all(one(store, job.id).state is State.FAILED for job in some)
    answer = person.submit(plan, "Retry 3 jobs, for up to 57 credits")

    assert "3 of 3 jobs are retried." in answer.text
    assert "Batch spring" in answer.text
    assert all(one(store, job.id).state is State.QUEUED for job in some)
    assert {one(store, each.id).state for each in (other, lost)} == {State.FAILED}


def test_what_has_moved_on_since_the_plan_is_left_alone(person: Person, store: Store) -> None:
    """And is told of."""
    [a, b] = put(store, sung(key="a"), sung(key="b"))
    plan = person.submit(person.page("/?state=queued"), "Cancel these…")
    person.submit(person.page(f"/job/{a}/cancel"), "Cancel the job")

    answer = person.submit(plan, "Cancel 2 jobs")

    assert "1 of 2 jobs are cancelled. 1 had moved on meanwhile" in answer.text
    assert one(store, b).state is State.CANCELLED


def test_a_plan_of_nothing_says_so(person: Person, store: Store) -> None:
    """There is no button then."""
    brought_to(store, State.SUCCEEDED, sung(name="Ana"))

    plan = person.submit(person.page("/?q=Ana"), "Retry those that failed…")

    assert "Retry 0 jobs?" in plan.text
    assert not [form for form in plan.forms if form["action"] == "/do/carry-out"]


def test_what_it_would_cost_to_order_anew_is_told_before(person: Person, store: Store) -> None:
    """Where upstream could be asked again for nothing."""
    failed(store, brought_to(store, State.PENDING), Code.DEADLINE)

    plan = person.submit(person.page("/?state=failed"), "Retry those that failed…")
    anew = person.submit(plan, "What would it cost to order all of them anew?")

    assert "up to 15 credits" in plan.text
    assert "up to 19 credits , 4 of them for what was charged before" in anew.text


# ── the whole ─────────────────────────────────────────────────────────────────────────────────────


def test_everything_is_paused_and_goes_on(person: Person, store: Store) -> None:
    """With how many that holds back, what they are worth, and why for the others."""
    put(store, sung(key="a"), sung(key="b"))

    page = person.page("/controls")
    assert "holds 2 queued jobs back, worth up to 38 credits" in page.text
    paused = person.submit(page, "Pause", why="the songs sound odd")
    assert "Everything is paused." in paused.text
    assert "the songs sound odd" in paused.text
    assert not store.controls.gate(NOW).open
    answer = person.submit(paused, "Resume")

    assert "Everything goes on." in answer.text
    assert store.controls.gate(NOW).open


def test_one_stage_is_paused(person: Person, store: Store) -> None:
    """The other goes on."""
    page = person.page("/controls")
    form = next(form for form in page.forms if form["fields"].get("stage") == Stage.MUSIC)
    person.post(form["action"], form["fields"])

    assert [hold.reason for hold in store.controls.gate(NOW).holds] == ["paused.music"]


def test_a_batch_is_paused_and_limited(person: Person, store: Store) -> None:
    """What is left empty is no limit."""
    put(store, sung(batch="spring"))

    page = person.submit(person.page("/?batch=spring"), "Pause")
    assert "Batch spring is paused." in page.text
    page = person.submit(page, "Set its limits", max_credits="500", max_in_flight="3")
    assert "at most 500 credits" in page.text
    page = person.submit(page, "Set its limits", max_in_flight="")
    person.submit(page, "Resume")

    found = store.batch("spring")
    assert found is not None
    assert (found.paused, found.max_credits, found.max_in_flight) == (False, 500, None)


def test_limits_are_set_for_all_workers(person: Person, store: Store) -> None:
    """And go back to the settings where nothing stands."""
    before = store.controls.limits().in_flight
    page = person.submit(person.page("/controls"), "Set the limits", in_flight="7", submit_rate="12.5")
    assert store.controls.limits().in_flight == 7
    assert store._space.redis.hkeys(store._space.key("limits")) == ["in_flight", "submit_rate"]
    person.submit(page, "Set the limits", in_flight="")

    now = store.controls.limits()
    assert (now.in_flight, now.submit_rate, now.credit_floor) == (before, 12.5, 0)


@pytest.mark.parametrize(
    ("path", "button", "fields", "named"),
    [
        ("/controls", "Set the limits", {"in_flight": "0"}, "in_flight: 0.0 must be a whole number of at least 1"),
        (
            "/controls",
            "Set the limits",
            {"submit_rate": "1e-320"},
            "must be a number of at least 0.01, or 0 for no limit",
        ),
        ("/controls", "Set the limits", {"credit_floor": "many"}, "credit_floor: must be a number"),
        ("/?batch=spring", "Set its limits", {"max_in_flight": "1.5"}, "max_in_flight: must be a whole number"),
        ("/?batch=spring", "Set its limits", {"batch": "none"}, "no batch"),
        ("/controls", "Pause", {"stage": "bridge"}, "stage: must be voice or music"),
    ],
)
def test_what_is_not_allowed_is_named(
    person: Person, store: Store, path: str, button: str, fields: dict[str, Any], named: str
) -> None:
    """As a page."""
    put(store, sung(batch="spring"))
    page = person.page(path)
    status = 404 if named == "no batch" else 422

    assert named in person.submit(page, button, status=status, **fields).text


# ── by whom ───────────────────────────────────────────────────────────────────────────────────────


def test_who_may_only_read_is_offered_nothing_and_refused(gateway: Gateway, store: Store) -> None:
    """Whatever he sends."""
    job = refused(store)
    person = Person(gateway, "read")
    token = person.page("/").forms[1]["fields"]["token"]

    for path in ("/", f"/job/{job.id}", "/controls", "/?state=failed"):
        page = person.page(path)
        assert {form["action"] for form in page.forms if form["method"] == "post"} <= {"/logout"}
        assert not [link for link in page.links() if link.endswith(("/retry", "/cancel", "/review"))]
    for path in (f"/job/{job.id}/retry", "/do/plan", "/do/pause", "/do/limits", f"/job/{job.id}/cancel"):
        answer = person.post(path, {"token": token, "action": "retry"})
        assert answer.status_code == 403
        assert "scope operate" in answer.text
    assert person.page(f"/job/{job.id}/retry", status=403)
    assert one(store, job.id).state is State.FAILED


@pytest.mark.parametrize("token", ["", "x", "of another"])
def test_a_form_that_is_not_ours_does_nothing(gateway: Gateway, store: Store, token: str) -> None:
    """Another site can have a browser send it, but does not know what stands in ours."""
    job = refused(store)
    person = Person(gateway, "all")
    theirs = Person(gateway, "read").page("/").forms[1]["fields"]["token"]

    answer = person.post(f"/job/{job.id}/retry", {"token": theirs if token == "of another" else token})

    assert answer.status_code == 403
    assert "load its page again" in answer.text
    assert one(store, job.id).state is State.FAILED


def test_without_a_login_nothing_is_done(gateway: Gateway, store: Store) -> None:
    """One is sent to the login, and from there to the beginning."""
    job = refused(store)

    answer = Person(gateway).session.post(f"{gateway.url}/job/{job.id}/retry", allow_redirects=False, timeout=10)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?onward=%2F")
    assert one(store, job.id).state is State.FAILED


def test_without_redis_the_page_says_so(build_gateway: Build, prefix: str) -> None:
    """As a page, in words; a login is neither forgotten nor possible."""
    gateway = build_gateway(REDIS_URL="redis://127.0.0.1:1/0")
    assert logged_in(gateway, KEYS["all"][0]).status_code == 503
    person = Person(gateway, None)
    person.session.cookies.set(prefix, "x" * 43)

    assert "Redis" in person.page("/", status=503).text
    assert "Redis" in person.page("/job/any", status=503).text
