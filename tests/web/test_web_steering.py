"""Operations over HTTP: cancel, retry, bulk plans, batches, status, pause and resume."""

from __future__ import annotations

from typing import Any

import pytest

from tests.store.life import NOW, apply_transition, enqueue_jobs, fail_job, get_job, job_in_state
from tests.support.jobs import numbered_voices, voice, voice_with_song
from tests.web.conftest import Gateway, problem
from voicequeue import FailureCode, RejectedMessage, State, VoiceQueue
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway

# ── one job ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_is_cancelled(gateway: Gateway, store: JobStore) -> None:
    """The response is the job afterwards. Cancelling it again is 409."""
    job = job_in_state(store, State.QUEUED)

    answer = gateway.post(f"/v1/jobs/{job.id}/cancel")

    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    problem(gateway.post(f"/v1/jobs/{job.id}/cancel"), 409, "invalid_state")
    problem(gateway.post("/v1/jobs/nowhere/cancel"), 404, "job_not_found")


def test_a_failed_job_is_polled_again_or_resubmitted(gateway: Gateway, store: JobStore) -> None:
    """An order that may still deliver is polled again, unless `resubmit` is set."""
    polled, resubmitted = (
        fail_job(store, job_in_state(store, State.PENDING, voice()), FailureCode.DEADLINE) for _ in range(2)
    )

    first = gateway.post(f"/v1/jobs/{polled.id}/retry")
    second = gateway.post(f"/v1/jobs/{resubmitted.id}/retry?resubmit=true")

    assert (first.json()["state"], second.json()["state"]) == ("pending", "queued")
    problem(gateway.post(f"/v1/jobs/{polled.id}/retry"), 409, "invalid_state")
    problem(gateway.post(f"/v1/jobs/{polled.id}/retry?resubmit=maybe"), 422, "invalid")


def test_a_retry_corrects_the_recording(gateway: Gateway, queue: VoiceQueue, store: JobStore) -> None:
    """With the fields of the body; a URL that is none, or a voice that was paid, is an error and changes nothing."""
    refused = fail_job(store, job_in_state(store, State.CHARGING, voice(key="k")), FailureCode.REFUSED)
    paid = fail_job(store, job_in_state(store, State.PENDING, voice(key="paid")), FailureCode.DEADLINE)
    url = "https://recordings.example/corrected.wav"

    problem(gateway.post(f"/v1/jobs/{refused.id}/retry", {"audio_url": "ana.wav"}), 422, "invalid")
    problem(gateway.post(f"/v1/jobs/{refused.id}/retry", {"audio": url}), 422, "invalid")
    problem(gateway.post(f"/v1/jobs/{paid.id}/retry", {"audio_url": url}), 409, "invalid_state")
    answer = gateway.post(f"/v1/jobs/{refused.id}/retry", {"audio_url": url})

    assert (answer.status_code, answer.json()["state"], answer.json()["audio_url"]) == (200, "queued", url)
    assert queue.timeline(refused.id)[-2].reason.startswith("audio_url corrected by http")


# ── many jobs ──────────────────────────────────────────────────────────────────────────────────────────


def planned(gateway: Gateway, action: str, **order: Any) -> dict[str, Any]:
    """Create a plan."""
    answer = gateway.post(f"/v1/{action}", order)
    assert answer.status_code == 200, answer.text
    plan: dict[str, Any] = answer.json()
    return plan


def executed(gateway: Gateway, plan: dict[str, Any]) -> tuple[int, int, int]:
    """Execute a plan; return the numbers of jobs found, changed and left unchanged."""
    answer = gateway.post(f"/v1/{plan['action']}", {"token": plan["token"]})
    assert answer.status_code == 200, answer.text
    result = answer.json()
    return result["count"], result["changed"], result["skipped"]


def test_a_plan_changes_nothing_and_its_token_exactly_its_jobs(
    gateway: Gateway, queue: VoiceQueue, store: JobStore
) -> None:
    """Later jobs are left unchanged; a job that changed state meanwhile is cancelled in its new state."""
    ids = enqueue_jobs(store, *numbered_voices(4, batch="b"))
    plan = planned(gateway, "cancel", filter={"batch": "b"})
    assert (plan["count"], plan["submitted"], plan["complete"]) == (4, 0, True)
    assert queue.batch("b").states[State.QUEUED] == 4
    enqueue_jobs(store, voice(batch="b", key="later"))
    store.admit(NOW, at_most=1)

    done = executed(gateway, plan)

    assert done == (4, 4, 0)
    assert [get_job(store, job_id).state for job_id in ids] == [State.CANCELLED] * 4
    assert queue.batch("b").states[State.QUEUED] == 1


def test_charging_and_unsure_jobs_are_cancelled_later(gateway: Gateway, store: JobStore) -> None:
    """This holds for one job and for a plan; the ETag changes."""
    charging = job_in_state(store, State.CHARGING, voice_with_song(batch="b", key="1"))
    unsure = job_in_state(store, State.UNSURE, voice_with_song(batch="b", key="2"))
    tag = gateway("GET", f"/v1/jobs/{charging.id}").headers["ETag"]

    answer = gateway.post(f"/v1/jobs/{charging.id}/cancel")
    assert (answer.status_code, answer.json()["state"], answer.json()["cancelling"]) == (200, "charging", True)
    plan = planned(gateway, "cancel", filter={"batch": "b"})
    assert (plan["count"], plan["uncertain"]) == (1, 1)
    done = gateway.post("/v1/cancel", {"token": plan["token"]}).json()

    assert (done["changed"], done["cancelling"], done["skipped"]) == (0, 1, 0)
    assert get_job(store, unsure.id).is_cancelling
    assert gateway("GET", f"/v1/jobs/{charging.id}", headers={"If-None-Match": tag}).status_code == 200
    assert gateway.get("/v1/batches/b")["credits_reserved"] == 8


def test_a_plan_says_what_it_costs(gateway: Gateway, store: JobStore) -> None:
    """A retry has its cost and the part that is charged again, a cancellation the jobs that stay paid."""
    fail_job(store, job_in_state(store, State.PENDING, voice_with_song()), FailureCode.UPSTREAM_FAILED)
    fail_job(store, job_in_state(store, State.PENDING, voice_with_song(batch="b")), FailureCode.DEADLINE)
    job_in_state(store, State.PENDING, voice(batch="b"))

    retry, resubmission = planned(gateway, "retry", filter={}), planned(gateway, "retry", filter={}, resubmit=True)
    cancel = planned(gateway, "cancel", filter={"batch": "b"})

    assert (retry["count"], retry["max_credits"], retry["repeat_credits"]) == (2, 19 + 15, 4)
    assert (
        resubmission["count"],
        resubmission["max_credits"],
        resubmission["repeat_credits"],
        resubmission["resubmit"],
    ) == (
        2,
        38,
        8,
        True,
    )
    assert (cancel["count"], cancel["submitted"]) == (1, 1)
    assert executed(gateway, resubmission) == (2, 2, 0)


@pytest.mark.parametrize("order", [{"code": "deadline"}, {"batch": "b"}, {"metadata": {"customer": "17"}}])
def test_plans_are_filtered_like_lists(gateway: Gateway, store: JobStore, order: dict[str, Any]) -> None:
    """Of two failed jobs, the one that matches is retried."""
    matching = fail_job(
        store,
        job_in_state(store, State.PENDING, voice_with_song(batch="b", metadata={"customer": "17"})),
        FailureCode.DEADLINE,
    )
    other = fail_job(store, job_in_state(store, State.PENDING, voice_with_song()), FailureCode.UPSTREAM_FAILED)

    assert executed(gateway, planned(gateway, "retry", filter=order)) == (1, 1, 0)

    assert get_job(store, matching.id).state is State.PENDING
    assert get_job(store, other.id).state is State.FAILED


def test_executing_a_plan_twice_is_safe(gateway: Gateway, store: JobStore) -> None:
    """The second time every job has changed: a request whose response was lost can be repeated."""
    job = fail_job(store, job_in_state(store, State.PENDING, voice_with_song()), FailureCode.UPSTREAM_FAILED)
    plan = planned(gateway, "retry", filter={"state": "failed"})

    assert [executed(gateway, plan) for _ in range(2)] == [(1, 1, 0), (1, 0, 1)]
    apply_transition(store, get_job(store, job.id), State.CANCELLED)
    assert executed(gateway, plan) == (1, 0, 1)


def test_an_empty_filter_selects_every_open_job(gateway: Gateway, queue: VoiceQueue, store: JobStore) -> None:
    """Finished jobs are not part of the plan; charging and unsure ones are cancelled later."""
    for state in (State.SUCCEEDED, State.UNSURE, State.CHARGING, State.PENDING, State.ADMITTED):
        job_in_state(store, state, voice())
    enqueue_jobs(store, voice())

    plan = planned(gateway, "cancel", filter={})

    assert executed(gateway, plan) == (5, 3, 0)
    assert queue.status().states[State.CANCELLED] == 3


def test_a_plan_has_a_limited_number_of_jobs(
    gateway: Gateway, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that more match; executing it and planning again covers them."""
    monkeypatch.setattr("voicequeue.client.bulk_operations.MAX_JOBS", 3)
    enqueue_jobs(store, *numbered_voices(4))

    first = planned(gateway, "cancel", filter={})
    assert (first["count"], first["complete"]) == (3, False)
    assert executed(gateway, first) == (3, 3, 0)
    assert planned(gateway, "cancel", filter={})["complete"]


def test_a_token_is_valid_for_its_own_action_only(gateway: Gateway, store: JobStore) -> None:
    """A plan to retry cancels nothing; an unknown token is 404."""
    fail_job(store, job_in_state(store, State.PENDING, voice_with_song()), FailureCode.DEADLINE)
    plan = planned(gateway, "retry", filter={})

    for action, token in (("cancel", plan["token"]), ("retry", "x" * 22), ("retry", "*"), ("retry", "")):
        problem(gateway.post(f"/v1/{action}", {"token": token}), 404, "plan_not_found")


@pytest.mark.parametrize(
    ("action", "order", "fields"),
    [
        ("cancel", {}, {"filter", "token"}),
        ("cancel", {"filter": {}, "token": "x"}, {"filter", "token"}),
        ("retry", {"token": "x", "resubmit": True}, {"filter", "token"}),
        ("cancel", {"filter": {}, "resubmit": True}, {"resubmit"}),
        ("cancel", {"filter": {"stat": "failed"}}, {"filter.stat"}),
        ("cancel", {"filter": {"state": "lost", "since": "yesterday"}}, {"filter.state", "filter.since"}),
        ("retry", [], {""}),
    ],
)
def test_an_invalid_bulk_request_names_its_fields(gateway: Gateway, action: str, order: Any, fields: set[str]) -> None:
    """A misspelled filter must not select every job."""
    assert problem(gateway.post(f"/v1/{action}", order), 422, "invalid").keys() == fields


# ── batches and status ────────────────────────────────────────────────────────────────────────────


def test_batches_are_listed_newest_first(gateway: Gateway, store: JobStore, queue: VoiceQueue) -> None:
    """They come in pages."""
    for index, name in enumerate(("one", "two", "three")):
        enqueue_jobs(store, voice(batch=name), now=NOW + index)
    queue.set_batch_limits("two", max_credits=9)

    first = gateway.get("/v1/batches?limit=2")
    second = gateway.get(f"/v1/batches?limit=2&cursor={first['next_cursor']}")

    assert [batch["name"] for batch in first["data"] + second["data"]] == ["three", "two", "one"]
    assert second["next_cursor"] is None
    assert gateway.get("/v1/batches/two") == first["data"][1] == queue.batch("two").full_dict()
    assert (first["data"][1]["max_credits"], first["data"][1]["states"]["queued"]) == (9, 1)
    problem(gateway("GET", "/v1/batches/nowhere"), 404, "batch_not_found")


def test_limits_of_a_batch_are_set_kept_and_removed(gateway: Gateway, store: JobStore, queue: VoiceQueue) -> None:
    """Omitted limits stay; null removes one."""
    enqueue_jobs(store, voice(batch="b"))

    def set_limits(**limits: int | None) -> tuple[int | None, int | None]:
        answer = gateway("PATCH", "/v1/batches/b", json=limits)
        assert answer.status_code == 200, answer.text
        return queue.batch("b").max_credits, queue.batch("b").max_in_flight

    assert set_limits(max_credits=9, max_in_flight=2) == (9, 2)
    assert set_limits(max_in_flight=3) == (9, 3)
    assert set_limits(max_credits=None) == (None, 3)


def test_the_status_covers_the_queue_or_one_batch(gateway: Gateway, store: JobStore) -> None:
    """It is the one of the command line."""
    enqueue_jobs(store, voice(batch="b"), voice())

    assert gateway.get("/v1/status")["states"]["queued"] == 2
    assert gateway.get("/v1/status?batch=b")["states"]["queued"] == 1
    assert gateway.get("/v1/status")["gate"] == {"open": True, "holds": []}
    problem(gateway("GET", "/v1/status?batch=c"), 404, "batch_not_found")


def test_rejected_messages_are_listed_newest_first(gateway: Gateway, store: JobStore) -> None:
    """The list is the one of the command line."""
    for number in range(3):
        store.rejected_messages.add(
            RejectedMessage(NOW, f"m{number}", "voicequeue.enqueue", "no job", {"audio_url": "x"})
        )

    messages = gateway.get("/v1/rejected-messages?limit=2")["data"]

    assert messages == [message.as_dict() for message in store.rejected_messages.latest(2)]
    assert [message["message_id"] for message in messages] == ["m2", "m1"]
    assert gateway.get("/v1/status")["rejected_messages"] == 3


# ── pause and resume ──────────────────────────────────────────────────────────────────────────────


def test_the_queue_or_one_stage_is_paused_and_resumed(gateway: Gateway) -> None:
    """The status shows the hold with its reason; repeating a request changes nothing."""
    changed = [gateway.post(f"/v1/pause{query}").json()["changed"] for query in ("?reason=lunch", "", "?stage=music")]
    holds = gateway.get("/v1/status")["gate"]["holds"]
    resumed = [gateway.post(f"/v1/resume{query}").json()["changed"] for query in ("?stage=music", "", "")]

    assert (changed, resumed) == ([True, False, True], [True, True, False])
    assert {hold["reason"]: hold["detail"] for hold in holds} == {"paused": "lunch", "paused.music": ""}
    assert gateway.get("/v1/status")["gate"]["open"]


def test_one_batch_is_paused_and_resumed(gateway: Gateway, store: JobStore) -> None:
    """Other batches continue; a stage of a batch cannot be paused."""
    enqueue_jobs(store, voice(batch="b"))

    assert gateway.post("/v1/pause?batch=b").json() == {"changed": True}
    assert gateway.get("/v1/batches/b")["paused"]
    assert gateway.get("/v1/status")["gate"]["open"]
    assert gateway.post("/v1/resume?batch=b").json() == {"changed": True}

    problem(gateway.post("/v1/pause?batch=nowhere"), 404, "batch_not_found")
    assert problem(gateway.post("/v1/pause?batch=b&stage=voice"), 422, "invalid").keys() == {"stage", "batch"}
