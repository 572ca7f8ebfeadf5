"""The pages that change something: each asks for confirmation with counts and costs, and needs the scope `operate`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.store.life import NOW, enqueue_jobs, fail_job, get_job, job_in_state
from tests.support.jobs import voice_with_song
from tests.web.conftest import KEYS, Build, Gateway
from tests.web.seen import PageUser, log_in
from voicequeue import FailureCode, Job, Stage, State
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway


@pytest.fixture
def person(local: Gateway) -> PageUser:
    """Return a user of this machine, where no key is configured."""
    return PageUser(local)


def refused(store: JobStore, **fields: str) -> Job:
    """Return a job whose voice MusicAPI refused without charging it."""
    return fail_job(store, job_in_state(store, State.CHARGING, voice_with_song(**fields)), FailureCode.REFUSED)


# ── one job ───────────────────────────────────────────────────────────────────────────────────────


def test_a_failed_job_is_retried_after_its_cost_was_confirmed(person: PageUser, store: JobStore) -> None:
    """Nothing changes before the confirmation."""
    job = refused(store)

    page = person.page(f"/job/{job.id}")
    assert f"/job/{job.id}/retry" in page.links()
    question = person.page(f"/job/{job.id}/retry")
    assert get_job(store, job.id).state is State.FAILED
    assert "up to 19 credits" in question.text
    answer = person.submit(question, "Retry for up to 19 credits")

    assert get_job(store, job.id).state is State.QUEUED
    assert "The job is now queued." in answer.text
    assert "The job is now queued." not in person.page(f"/job/{job.id}").text


def test_a_retry_does_not_pay_for_what_its_form_did_not_show(person: PageUser, store: JobStore) -> None:
    """The form of an earlier failure is refused after the job was retried and failed again."""
    job = refused(store)
    question = person.page(f"/job/{job.id}/retry")
    person.submit(question, "Retry for up to 19 credits")
    fail_job(store, get_job(store, job.id), FailureCode.REFUSED)

    answer = person.submit(question, "Retry for up to 19 credits", status=409)

    assert "a retry may cost more now" in answer.text
    assert get_job(store, job.id).state is State.FAILED


def test_the_recording_is_corrected_with_a_retry(person: PageUser, store: JobStore) -> None:
    """The form has the URL that failed. It is offered only where nothing was paid for it."""
    job = refused(store)
    paid = fail_job(store, job_in_state(store, State.PENDING, voice_with_song(key="paid")), FailureCode.DEADLINE)
    question = person.page(f"/job/{job.id}/retry")

    person.submit(question, "Retry with this recording", audio_url="https://recordings.example/corrected.wav")

    assert get_job(store, job.id).spec.audio_url == "https://recordings.example/corrected.wav"
    assert get_job(store, job.id).state is State.QUEUED
    assert "Retry with this recording" not in person.page(f"/job/{paid.id}/retry").text


def test_a_retry_names_the_credits_that_are_charged_again(person: PageUser, store: JobStore) -> None:
    """It also says whether MusicAPI is polled first, which it is if it has the order."""
    job = fail_job(store, job_in_state(store, State.PENDING), FailureCode.UPSTREAM_FAILED)
    given_up = fail_job(store, job_in_state(store, State.UNSURE, voice_with_song(key="other")), FailureCode.ABANDONED)

    polled_first, resubmitted = (person.page(f"/job/{failed_job.id}/retry").text for failed_job in (job, given_up))
    assert all("charged again: 4 credits" in text for text in (polled_first, resubmitted))
    assert ["polled once more" in text for text in (polled_first, resubmitted)] == [True, False]


@pytest.mark.parametrize(
    ("button", "state"),
    [("Retry for up to 15 credits", State.PENDING), ("Resubmit voice for up to 19 credits", State.QUEUED)],
)
def test_an_accepted_order_is_polled_again_or_resubmitted(
    person: PageUser, store: JobStore, button: str, state: State
) -> None:
    """There are two buttons, each with its cost."""
    job = fail_job(store, job_in_state(store, State.PENDING), FailureCode.DEADLINE)

    person.submit(person.page(f"/job/{job.id}/retry"), button)

    assert get_job(store, job.id).state is state


def test_a_job_is_cancelled_after_confirmation(person: PageUser, store: JobStore) -> None:
    """The page says that an order in progress stays paid."""
    job = job_in_state(store, State.PENDING)

    question = person.page(f"/job/{job.id}/cancel")
    assert "stays paid" in question.text
    person.submit(question, "Cancel job")

    assert get_job(store, job.id).state is State.CANCELLED


def test_a_charging_job_is_cancelled_later(person: PageUser, store: JobStore) -> None:
    """The page says why it is not cancelled at once; so does a plan for many jobs."""
    job, other = (job_in_state(store, State.CHARGING, voice_with_song(batch="b", key=key)) for key in "ab")

    question = person.page(f"/job/{job.id}/cancel")
    assert "is being submitted" in question.text
    answer = person.submit(question, "Cancel job")
    assert "no further stage is submitted" in answer.text
    assert "cancelling" in person.page("/?batch=b").text
    plan = person.submit(person.page("/?batch=b"), "Cancel all…")
    assert "1 are charging or unsure" in plan.text
    notice = person.submit(plan, "Cancel 1 job").text

    assert "Cancelled 0 of 1 job. 1 will be cancelled once the outcome of their requests is known." in notice
    assert all(get_job(store, charging.id).is_cancelling for charging in (job, other))


@pytest.mark.parametrize("action", ["retry", "cancel", "review"])
def test_impossible_actions_are_not_offered(person: PageUser, store: JobStore, action: str) -> None:
    """A direct request gets an error page with the reason."""
    job = job_in_state(store, State.SUCCEEDED)

    assert not [link for link in person.page(f"/job/{job.id}").links() if link.endswith(action)]
    assert "succeeded" in person.page(f"/job/{job.id}/{action}", status=409).text
    assert person.page(f"/job/{job.id}/{action}", status=409).links()
    assert "no job" in person.page(f"/job/none/{action}", status=404).text


def test_an_undelivered_callback_is_delivered_again(person: PageUser, store: JobStore) -> None:
    """The page of the job shows why delivery failed."""
    job = job_in_state(store, State.SUCCEEDED, voice_with_song(callback_url="https://hooks.example/told"))
    [callback] = store.callbacks.pending()
    store.callbacks.mark_undelivered(callback.id, NOW, "410 Gone", is_attempted=True)

    page = person.page(f"/job/{job.id}")
    assert all(part in page.text for part in ("https://hooks.example/told", "undelivered", "410 Gone"))
    answer = person.submit(page, "Deliver now")

    assert "pending" in answer.text
    assert not list(store.callbacks.undelivered())
    store.callbacks.mark_delivered(callback.id, NOW)
    assert "The last callback was delivered." in person.page(f"/job/{job.id}").text


# ── many jobs ─────────────────────────────────────────────────────────────────────────────────────


def test_many_failed_jobs_are_retried_by_a_plan(person: PageUser, store: JobStore) -> None:
    """Exactly the jobs of the filter are retried; the plan shows their number and cost."""
    some = [refused(store, batch="spring", key=f"s{n}") for n in range(3)]
    other = refused(store, batch="summer", key="o")
    lost = fail_job(
        store, job_in_state(store, State.PENDING, voice_with_song(batch="spring", key="l")), FailureCode.UPSTREAM_FAILED
    )

    page = person.page("/?batch=spring&state=failed&code=refused")
    plan = person.submit(page, "Retry failed…")
    assert "Retry 3 jobs?" in plan.text
    assert "up to 57 credits" in plan.text
    assert all(get_job(store, job.id).state is State.FAILED for job in some)
    answer = person.submit(plan, "Retry 3 jobs for up to 57 credits")

    assert "Retried 3 of 3 jobs." in answer.text
    assert "Batch spring" in answer.text
    assert all(get_job(store, job.id).state is State.QUEUED for job in some)
    assert {get_job(store, job.id).state for job in (other, lost)} == {State.FAILED}


def test_jobs_that_changed_since_the_plan_are_left_unchanged(person: PageUser, store: JobStore) -> None:
    """The notice counts them."""
    [a, b] = enqueue_jobs(store, voice_with_song(key="a"), voice_with_song(key="b"))
    plan = person.submit(person.page("/?state=queued"), "Cancel all…")
    person.submit(person.page(f"/job/{a}/cancel"), "Cancel job")

    answer = person.submit(plan, "Cancel 2 jobs")

    assert "Cancelled 1 of 2 jobs. 1 changed meanwhile and were left unchanged." in answer.text
    assert get_job(store, b).state is State.CANCELLED


def test_an_empty_plan_cannot_be_executed(person: PageUser, store: JobStore) -> None:
    """The page has no button for it."""
    job_in_state(store, State.SUCCEEDED, voice_with_song(name="Ana"))

    plan = person.submit(person.page("/?q=Ana"), "Retry failed…")

    assert "Retry 0 jobs?" in plan.text
    assert not [form for form in plan.forms if form["action"] == "/do/execute"]


def test_the_cost_of_resubmitting_is_shown_before(person: PageUser, store: JobStore) -> None:
    """The default is to poll the orders that MusicAPI has, which is free."""
    fail_job(store, job_in_state(store, State.PENDING), FailureCode.DEADLINE)

    plan = person.submit(person.page("/?state=failed"), "Retry failed…")
    resubmission = person.submit(plan, "Show the cost of resubmitting all of them")

    assert "up to 15 credits" in plan.text
    assert "up to 19 credits , including 4 for stages that were charged before" in resubmission.text


# ── the queue ─────────────────────────────────────────────────────────────────────────────────────


def test_the_queue_is_paused_and_resumed(person: PageUser, store: JobStore) -> None:
    """The page shows how many jobs that holds back, their cost, and the reason of the pause."""
    enqueue_jobs(store, voice_with_song(key="a"), voice_with_song(key="b"))

    page = person.page("/controls")
    assert "holds back 2 queued jobs, up to 38 credits" in page.text
    paused = person.submit(page, "Pause", reason="the songs sound odd")
    assert "The queue is paused." in paused.text
    assert "the songs sound odd" in paused.text
    assert not store.flow_control.gate(NOW).is_open
    answer = person.submit(paused, "Resume")

    assert "The queue is resumed." in answer.text
    assert store.flow_control.gate(NOW).is_open


def test_one_stage_is_paused(person: PageUser, store: JobStore) -> None:
    """The other stage continues."""
    page = person.page("/controls")
    form = next(form for form in page.forms if form["fields"].get("stage") == Stage.MUSIC)
    person.post(form["action"], form["fields"])

    assert [hold.reason for hold in store.flow_control.gate(NOW).holds] == ["paused.music"]


def test_a_batch_is_paused_and_limited(person: PageUser, store: JobStore) -> None:
    """An empty field removes a limit."""
    enqueue_jobs(store, voice_with_song(batch="spring"))

    page = person.submit(person.page("/?batch=spring"), "Pause")
    assert "Batch spring is paused." in page.text
    page = person.submit(page, "Save limits", max_credits="500", max_in_flight="3")
    assert "max. 500 credits" in page.text
    page = person.submit(page, "Save limits", max_in_flight="")
    person.submit(page, "Resume")

    batch = store.batch("spring")
    assert batch is not None
    assert (batch.is_paused, batch.max_credits, batch.max_in_flight) == (False, 500, None)


def test_a_batch_that_has_stopped_is_shown_and_resumed(person: PageUser, store: JobStore) -> None:
    """With its reason and its failures by code."""
    for key in "abc":
        job_in_state(store, State.FAILED, voice_with_song(batch="spring", key=key))
    job_in_state(store, State.QUEUED, voice_with_song(batch="spring", key="next"))
    page = person.submit(person.page("/?batch=spring"), "Save limits", stop_after="12.5", stop_min="3")

    reason = "stopped: 3 of 3 settled jobs failed (upstream_failed 3), 0 orders in flight, limit 12.5 %"
    assert reason in page.text
    assert "stops when 12.5 % of at least 3 settled jobs failed" in page.text
    assert "spring stopped" in " ".join(person.page("/batches").text.split())
    page = person.submit(page, "Resume")
    batch = store.batch("spring")
    assert batch is not None
    assert (batch.is_paused, batch.stop_after, batch.stop_min) == (False, 0.125, 3)
    assert reason not in person.page("/?batch=spring").text


def test_limits_are_set_for_all_workers(person: PageUser, store: JobStore) -> None:
    """An empty field returns to the settings."""
    before = store.flow_control.limits().in_flight
    page = person.submit(person.page("/controls"), "Save limits", in_flight="7", submit_rate="12.5")
    assert store.flow_control.limits().in_flight == 7
    assert store._space.redis.hkeys(store._space.key("limits")) == ["in_flight", "submit_rate"]
    person.submit(page, "Save limits", in_flight="")

    now = store.flow_control.limits()
    assert (now.in_flight, now.submit_rate, now.min_balance) == (before, 12.5, 0)


@pytest.mark.parametrize(
    ("path", "button", "fields", "named"),
    [
        ("/controls", "Save limits", {"in_flight": "0"}, "0.0 must be a whole number of at least 1"),
        (
            "/controls",
            "Save limits",
            {"submit_rate": "1e-320"},
            "must be a number of at least 0.01, or 0 for no limit",
        ),
        ("/controls", "Save limits", {"min_balance": "many"}, "must be a number"),
        ("/?batch=spring", "Save limits", {"max_in_flight": "1.5"}, "must be a whole number"),
        ("/?batch=spring", "Save limits", {"stop_after": "200"}, "must be a percentage above 0"),
        ("/?batch=spring", "Save limits", {"batch": "none"}, "no batch"),
        ("/controls", "Pause", {"stage": "bridge"}, "stage: must be voice or music"),
    ],
)
def test_an_invalid_value_is_named(
    person: PageUser, store: JobStore, path: str, button: str, fields: dict[str, Any], named: str
) -> None:
    """The page says what is allowed."""
    enqueue_jobs(store, voice_with_song(batch="spring"))
    page = person.page(path)
    status = 404 if named == "no batch" else 422

    assert named in person.submit(page, button, status=status, **fields).text


# ── permissions ───────────────────────────────────────────────────────────────────────────────────────


def test_a_key_with_only_read_can_change_nothing(gateway: Gateway, store: JobStore) -> None:
    """No form is offered to it, and every direct request is refused."""
    job = refused(store)
    person = PageUser(gateway, "read")
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
    assert get_job(store, job.id).state is State.FAILED


@pytest.mark.parametrize("token", ["", "x", "of another"])
def test_a_form_without_the_right_token_does_nothing(gateway: Gateway, store: JobStore, token: str) -> None:
    """Another site can make a browser send a form, but does not know the token."""
    job = refused(store)
    person = PageUser(gateway, "all")
    theirs = PageUser(gateway, "read").page("/").forms[1]["fields"]["token"]

    answer = person.post(f"/job/{job.id}/retry", {"token": theirs if token == "of another" else token})

    assert answer.status_code == 403
    assert "Nothing was changed" in answer.text
    assert get_job(store, job.id).state is State.FAILED


def test_without_a_login_nothing_changes(gateway: Gateway, store: JobStore) -> None:
    """The user is redirected to the login, and from there to the page of the form; here none is known."""
    job = refused(store)

    answer = PageUser(gateway).session.post(f"{gateway.url}/job/{job.id}/retry", allow_redirects=False, timeout=10)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?next=%2F&by=form")
    assert get_job(store, job.id).state is State.FAILED


def test_an_outage_of_redis_is_shown_as_a_page(build_gateway: Build, prefix: str) -> None:
    """Sessions survive it; logging in is impossible meanwhile."""
    gateway = build_gateway(REDIS_URL="redis://127.0.0.1:1/0")
    assert log_in(gateway, KEYS["all"][0]).status_code == 503
    person = PageUser(gateway, None)
    person.session.cookies.set(prefix, "x" * 43)

    assert "Redis" in person.page("/", status=503).text
    assert "Redis" in person.page("/job/any", status=503).text
