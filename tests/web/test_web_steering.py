"""Cancel and retry over HTTP: one job at once, many by a plan that was looked at first."""

from __future__ import annotations

from typing import Any

import pytest

from tests.store.life import NOW, brought_to, failed, make, one, put
from tests.support.jobs import numbered, sung, voice
from tests.web.conftest import Gateway, problem
from voicequeue import Code, RejectedMessage, State, VoiceQueue
from voicequeue.storage.job_store import Store

# ── one ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_is_cancelled(gateway: Gateway, store: Store) -> None:
    """And told as it stands then; a second time there is nothing to cancel."""
    job = brought_to(store, State.QUEUED)

    answer = gateway.post(f"/v1/jobs/{job.id}/cancel")

    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    problem(gateway.post(f"/v1/jobs/{job.id}/cancel"), 409, "not_allowed")
    problem(gateway.post("/v1/jobs/nowhere/cancel"), 404, "unknown_job")


def test_a_failed_job_is_retried_free_or_ordered_anew(gateway: Gateway, store: Store) -> None:
    """What may still come is asked for again, unless `resubmit` says to pay for another."""
    asked, anew = (failed(store, brought_to(store, State.PENDING, voice()), Code.DEADLINE) for _ in range(2))

    first = gateway.post(f"/v1/jobs/{asked.id}/retry")
    second = gateway.post(f"/v1/jobs/{anew.id}/retry?resubmit=true")

    assert (first.json()["state"], second.json()["state"]) == ("pending", "queued")
    problem(gateway.post(f"/v1/jobs/{asked.id}/retry"), 409, "not_allowed")
    problem(gateway.post(f"/v1/jobs/{asked.id}/retry?resubmit=maybe"), 422, "invalid")


# ── many ──────────────────────────────────────────────────────────────────────────────────────────


def planned(gateway: Gateway, action: str, **order: Any) -> dict[str, Any]:
    """The plan for an order."""
    answer = gateway.post(f"/v1/{action}", order)
    assert answer.status_code == 200, answer.text
    plan: dict[str, Any] = answer.json()
    return plan


def carried_out(gateway: Gateway, plan: dict[str, Any]) -> tuple[int, int, int]:
    """Found, changed, and moved on since."""
    answer = gateway.post(f"/v1/{plan['action']}", {"token": plan["token"]})
    assert answer.status_code == 200, answer.text
    done = answer.json()
    return done["found"], done["changed"], done["moved_on"]


def test_a_plan_changes_nothing_and_its_token_exactly_what_it_listed(
    gateway: Gateway, queue: VoiceQueue, store: Store
) -> None:
    """Jobs that came since then are left alone; one that moved on meanwhile is cancelled where it is."""
    ids = put(store, *numbered(4, batch="b"))
    plan = planned(gateway, "cancel", filter={"batch": "b"})
    assert (plan["found"], plan["paid"], plan["complete"]) == (4, 0, True)
    assert queue.batch("b").states[State.QUEUED] == 4
    put(store, voice(batch="b", key="later"))
    store.admit(NOW, at_most=1)

    done = carried_out(gateway, plan)

    assert done == (4, 4, 0)
    assert [one(store, job_id).state for job_id in ids] == [State.CANCELLED] * 4
    assert queue.batch("b").states[State.QUEUED] == 1


def test_what_is_under_way_is_marked(gateway: Gateway, store: Store) -> None:
    """One job, or many by a plan: no further stage is ordered; the tag changes, for the job does."""
    charging = brought_to(store, State.CHARGING, sung(batch="b", key="1"))
    unsure = brought_to(store, State.UNSURE, sung(batch="b", key="2"))
    tag = gateway("GET", f"/v1/jobs/{charging.id}").headers["ETag"]

    answer = gateway.post(f"/v1/jobs/{charging.id}/cancel")
    assert (answer.status_code, answer.json()["state"], answer.json()["cancelling"]) == (200, "charging", True)
    plan = planned(gateway, "cancel", filter={"batch": "b"})
    assert (plan["found"], plan["under_way"]) == (1, 1)
    done = gateway.post("/v1/cancel", {"token": plan["token"]}).json()

    assert (done["changed"], done["marked"], done["moved_on"]) == (0, 1, 0)
    assert one(store, unsure.id).cancelling
    assert gateway("GET", f"/v1/jobs/{charging.id}", headers={"If-None-Match": tag}).status_code == 200
    assert gateway.get("/v1/batches/b")["credits_committed"] == 8


def test_a_plan_says_what_it_costs(gateway: Gateway, store: Store) -> None:
    """A retry: what it may cost, and how much of that is paid again. A cancel: what is given up."""
    failed(store, brought_to(store, State.PENDING, sung()), Code.UPSTREAM_FAILED)
    failed(store, brought_to(store, State.PENDING, sung(batch="b")), Code.DEADLINE)
    brought_to(store, State.PENDING, voice(batch="b"))

    retry, anew = planned(gateway, "retry", filter={}), planned(gateway, "retry", filter={}, resubmit=True)
    cancel = planned(gateway, "cancel", filter={"batch": "b"})

    assert (retry["found"], retry["credits"], retry["again"]) == (2, 19 + 15, 4)
    assert (anew["found"], anew["credits"], anew["again"], anew["resubmit"]) == (2, 38, 8, True)
    assert (cancel["found"], cancel["paid"]) == (1, 1)
    assert carried_out(gateway, anew) == (2, 2, 0)


@pytest.mark.parametrize("order", [{"code": "deadline"}, {"batch": "b"}, {"metadata": {"customer": "17"}}])
def test_plans_are_filtered_as_lists_are(gateway: Gateway, store: Store, order: dict[str, Any]) -> None:
    """Of two failed jobs the one that is meant."""
    meant = failed(store, brought_to(store, State.PENDING, sung(batch="b", metadata={"customer": "17"})), Code.DEADLINE)
    other = failed(store, brought_to(store, State.PENDING, sung()), Code.UPSTREAM_FAILED)

    assert carried_out(gateway, planned(gateway, "retry", filter=order)) == (1, 1, 0)

    assert one(store, meant.id).state is State.PENDING
    assert one(store, other.id).state is State.FAILED


def test_a_plan_may_be_carried_out_twice_without_harm(gateway: Gateway, store: Store) -> None:
    """The second time every job has moved on: an answer that was lost may be asked for again."""
    job = failed(store, brought_to(store, State.PENDING, sung()), Code.UPSTREAM_FAILED)
    plan = planned(gateway, "retry", filter={"state": "failed"})

    assert [carried_out(gateway, plan) for _ in range(2)] == [(1, 1, 0), (1, 0, 1)]
    make(store, one(store, job.id), State.CANCELLED)
    assert carried_out(gateway, plan) == (1, 0, 1)


def test_every_job_that_is_not_over_can_be_meant(gateway: Gateway, queue: VoiceQueue, store: Store) -> None:
    """An empty filter says so; what is over is not listed, and what is under way is marked."""
    for state in (State.SUCCEEDED, State.UNSURE, State.CHARGING, State.PENDING, State.ADMITTED):
        brought_to(store, state, voice())
    put(store, voice())

    plan = planned(gateway, "cancel", filter={})

    assert carried_out(gateway, plan) == (5, 3, 0)
    assert queue.status().states[State.CANCELLED] == 3


def test_a_plan_takes_so_many_and_says_that_there_are_more(
    gateway: Gateway, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Carry it out and plan again."""
    monkeypatch.setattr("voicequeue.client.bulk_operations.MOST", 3)
    put(store, *numbered(4))

    first = planned(gateway, "cancel", filter={})
    assert (first["found"], first["complete"]) == (3, False)
    assert carried_out(gateway, first) == (3, 3, 0)
    assert planned(gateway, "cancel", filter={})["complete"]


def test_a_token_is_good_for_its_own_action_alone(gateway: Gateway, store: Store) -> None:
    """A plan to retry cancels nothing; a token that never was does nothing."""
    failed(store, brought_to(store, State.PENDING, sung()), Code.DEADLINE)
    plan = planned(gateway, "retry", filter={})

    for action, token in (("cancel", plan["token"]), ("retry", "x" * 22), ("retry", "*"), ("retry", "")):
        problem(gateway.post(f"/v1/{action}", {"token": token}), 404, "unknown_plan")


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
def test_an_order_that_is_none_is_refused_by_its_fields(
    gateway: Gateway, action: str, order: Any, fields: set[str]
) -> None:
    """A typing error must not mean every job."""
    assert problem(gateway.post(f"/v1/{action}", order), 422, "invalid").keys() == fields


# ── batches and status ────────────────────────────────────────────────────────────────────────────


def test_batches_are_counted_and_listed_the_newest_first(gateway: Gateway, store: Store, queue: VoiceQueue) -> None:
    """A page at a time."""
    for place, name in enumerate(("one", "two", "three")):
        put(store, voice(batch=name), now=NOW + place)
    queue.limit_batch("two", max_credits=9)

    first = gateway.get("/v1/batches?limit=2")
    second = gateway.get(f"/v1/batches?limit=2&cursor={first['next']}")

    assert [batch["batch"] for batch in first["batches"] + second["batches"]] == ["three", "two", "one"]
    assert second["next"] is None
    assert (
        gateway.get("/v1/batches/two")
        == first["batches"][1]
        == {
            **queue.batch("two").as_dict(),
            **queue.batch("two").limits(),
        }
    )
    assert (first["batches"][1]["max_credits"], first["batches"][1]["states"]["queued"]) == (9, 1)
    problem(gateway("GET", "/v1/batches/nowhere"), 404, "unknown_batch")


def test_a_limit_of_a_batch_is_set_left_and_taken_away(gateway: Gateway, store: Store, queue: VoiceQueue) -> None:
    """What is not there stays as it is; null is none."""
    put(store, voice(batch="b"))

    def set_so(**limits: int | None) -> tuple[int | None, int | None]:
        answer = gateway("PATCH", "/v1/batches/b", json=limits)
        assert answer.status_code == 204, answer.text
        return queue.batch("b").max_credits, queue.batch("b").max_in_flight

    assert set_so(max_credits=9, max_in_flight=2) == (9, 2)
    assert set_so(max_in_flight=3) == (9, 3)
    assert set_so(max_credits=None) == (None, 3)


def test_the_status_is_that_of_the_command_line(gateway: Gateway, store: Store) -> None:
    """Of all jobs, or of one batch."""
    put(store, voice(batch="b"), voice())

    assert gateway.get("/v1/status")["states"]["queued"] == 2
    assert gateway.get("/v1/status?batch=b")["states"]["queued"] == 1
    assert gateway.get("/v1/status")["gate"] == {"open": True, "holds": []}
    problem(gateway("GET", "/v1/status?batch=c"), 404, "unknown_batch")


def test_messages_that_became_no_job_are_told_the_newest_first(gateway: Gateway, store: Store) -> None:
    """As the command line tells them."""
    for number in range(3):
        store.rejects.add(RejectedMessage(NOW, f"m{number}", "voicequeue.enqueue", "no job", {"audio_url": "x"}))

    found = gateway.get("/v1/rejects?limit=2")["rejects"]

    assert found == [each.as_dict() for each in store.rejects.latest(2)]
    assert [each["message_id"] for each in found] == ["m2", "m1"]
    assert gateway.get("/v1/status")["rejects"] == 3


# ── pause and resume ──────────────────────────────────────────────────────────────────────────────


def test_everything_or_one_stage_is_paused_and_resumed(gateway: Gateway) -> None:
    """The status tells it, and why; doing it again changes nothing."""
    changed = [gateway.post(f"/v1/pause{query}").json()["changed"] for query in ("?why=lunch", "", "?stage=music")]
    held = gateway.get("/v1/status")["gate"]["holds"]
    resumed = [gateway.post(f"/v1/resume{query}").json()["changed"] for query in ("?stage=music", "", "")]

    assert (changed, resumed) == ([True, False, True], [True, True, False])
    assert {hold["reason"]: hold["detail"] for hold in held} == {"paused": "lunch", "paused.music": ""}
    assert gateway.get("/v1/status")["gate"]["open"]


def test_one_batch_is_paused_and_resumed(gateway: Gateway, store: Store) -> None:
    """The others go on; a stage of a batch cannot be paused."""
    put(store, voice(batch="b"))

    assert gateway.post("/v1/pause?batch=b").json() == {"changed": True}
    assert gateway.get("/v1/batches/b")["paused"]
    assert gateway.get("/v1/status")["gate"]["open"]
    assert gateway.post("/v1/resume?batch=b").json() == {"changed": True}

    problem(gateway.post("/v1/pause?batch=nowhere"), 404, "unknown_batch")
    assert problem(gateway.post("/v1/pause?batch=b&stage=voice"), 422, "invalid").keys() == {"stage", "batch"}
