"""Routes for operators: reviews of unsure orders, callbacks, voices, limits, rejected messages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.store.client.audited_calls import undelivered, unsure
from tests.store.life import NOW, apply_transition, claim_admitted, get_job, job_in_state
from tests.support.jobs import voice
from tests.web.conftest import Gateway, problem
from voicequeue import RejectedMessage, State, VoiceQueue
from voicequeue.domain import transitions
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway

HOOK = "https://shop.example/hook"


def all_pages(gateway: Gateway, path: str, **query: Any) -> list[list[Any]]:
    """Return the items of each page of a list, until the one that has no next page."""
    pages, cursor = [], None
    while True:
        page = gateway.get(path, params={**query, **({"cursor": cursor} if cursor else {})})
        assert page["has_more"] is (page["next_cursor"] is not None)
        pages.append(page["data"])
        if (cursor := page["next_cursor"]) is None:
            return pages


# ── reviews ───────────────────────────────────────────────────────────────────────────────────────────


def decide(gateway: Gateway, job_id: str, decision: str, attempt: int = 1, **more: Any) -> Any:
    """Send a decision."""
    body = {"decision": decision, "attempt": attempt, **more}
    return gateway.post(f"/v1/jobs/{job_id}/review", body, key="review")


def unsure_again(store: JobStore, job_id: str) -> None:
    """Let the next order of a job become unsure, too."""
    claim_admitted(store, job_id)
    job = get_job(store, job_id)
    apply_transition(store, job, State.UNSURE)


def test_unsure_jobs_are_listed_with_the_evidence(gateway: Gateway, store: JobStore) -> None:
    """Page by page, of all or of one batch, and one by one."""
    job_ids = [unsure(store) for _ in range(3)]
    other = job_in_state(store, State.UNSURE, voice()).id

    pages = all_pages(gateway, "/v1/reviews", limit=2)
    one = gateway.get(f"/v1/jobs/{other}/review", key="read")

    assert sorted(review["id"] for page in pages for review in page) == sorted([*job_ids, other])
    assert {review["id"] for review in gateway.get("/v1/reviews?batch=b")["data"]} == set(job_ids)
    assert (one["id"], one["attempt"], one["credits_at_stake"]) == (other, 1, 4)
    problem(gateway("GET", "/v1/reviews?batch=none"), 404, "batch_not_found")
    problem(gateway("GET", f"/v1/jobs/{job_in_state(store, State.QUEUED).id}/review"), 409, "invalid_state")


@pytest.mark.parametrize(
    ("decision", "more", "state"),
    [("confirm", {"task_id": "t-1"}, "pending"), ("resubmit", {}, "admitted"), ("abandon", {}, "failed")],
)
def test_a_decision_can_be_sent_again(
    gateway: Gateway, store: JobStore, queue: VoiceQueue, decision: str, more: dict[str, Any], state: str
) -> None:
    """The second request gets the job as it is, and changes nothing."""
    job_id = unsure(store)

    first = decide(gateway, job_id, decision, **more)
    second = decide(gateway, job_id, decision, **more)

    assert (first.status_code, first.json()["state"]) == (200, state), first.text
    assert (second.status_code, second.json()) == (200, first.json())
    assert len(queue.audit_log(action={"confirm": "confirm_charged"}.get(decision, decision)).items) == 1


def test_a_decision_about_one_order_never_applies_to_the_next(gateway: Gateway, store: JobStore) -> None:
    """A repeated resubmit does not pay for a third order, and another decision about the first one is refused."""
    job_id = unsure(store)
    assert decide(gateway, job_id, "resubmit").status_code == 200
    unsure_again(store, job_id)

    repeated = decide(gateway, job_id, "resubmit")

    assert (repeated.status_code, repeated.json()["state"]) == (200, "unsure")
    problem(decide(gateway, job_id, "abandon"), 409, "invalid_state")
    assert gateway.get(f"/v1/jobs/{job_id}/review")["attempt"] == 2
    assert decide(gateway, job_id, "abandon", attempt=2).json()["state"] == "failed"
    problem(decide(gateway, job_id, "resubmit", attempt=2), 409, "invalid_state")


def test_a_lost_order_is_confirmed_while_the_next_one_is_unsure(gateway: Gateway, store: JobStore) -> None:
    """By its number: its charge is counted, and the job is unsure about the next one, or continues with this one."""
    job_id = unsure(store)
    decide(gateway, job_id, "resubmit")
    unsure_again(store, job_id)

    confirmed = decide(gateway, job_id, "confirm", task_id="t-1")

    assert confirmed.status_code == 200, confirmed.text
    assert get_job(store, job_id).charged_task_ids == {1: "t-1"}
    assert transitions.lost_order(get_job(store, job_id), "t-2", 2).attempt == 2


@pytest.mark.parametrize(
    "body",
    [
        {"decision": "confirm", "attempt": 1},
        {"decision": "abandon", "attempt": 1, "task_id": "t"},
        {"decision": "abandon"},
        {"decision": "forget", "attempt": 1},
        {"decision": "abandon", "attempt": "1"},
        {},
    ],
)
def test_an_unclear_decision_is_refused(gateway: Gateway, store: JobStore, body: dict[str, Any]) -> None:
    """Nothing changes."""
    job_id = unsure(store)

    problem(gateway.post(f"/v1/jobs/{job_id}/review", body), 422, "invalid")

    assert get_job(store, job_id).state is State.UNSURE


def test_a_decision_needs_the_scope_review(gateway: Gateway, store: JobStore) -> None:
    """It may pay twice."""
    job_id = unsure(store)
    for key in ("operate", "read", "enqueue", "admin"):
        body = {"decision": "resubmit", "attempt": 1}
        problem(gateway.post(f"/v1/jobs/{job_id}/review", body, key=key), 403, "forbidden")


# ── callbacks ─────────────────────────────────────────────────────────────────────────────────────────


def test_undelivered_callbacks_are_listed_and_delivered_again(gateway: Gateway, store: JobStore) -> None:
    """One of them by its id; it is pending then."""
    callback_id = undelivered(store)

    [[listed]] = all_pages(gateway, "/v1/callbacks")
    again = gateway.post(f"/v1/callbacks/{callback_id}/redeliver", key="operate")

    assert (listed["id"], listed["last_error"], listed["type"]) == (callback_id, "410", "job.succeeded")
    assert (again.status_code, again.json()["undelivered_at"]) == (200, None)
    assert gateway.get("/v1/callbacks")["data"] == []
    assert [callback["id"] for callback in gateway.get("/v1/callbacks?state=pending")["data"]] == [callback_id]
    assert gateway.get(f"/v1/callbacks/{callback_id}")["id"] == callback_id
    problem(gateway("GET", "/v1/callbacks/none"), 404, "callback_not_found")
    problem(gateway.post("/v1/callbacks/none/redeliver"), 404, "callback_not_found")
    problem(gateway.post(f"/v1/callbacks/{callback_id}/redeliver", key="read"), 403, "forbidden")


def test_callbacks_are_delivered_again_by_batch_or_by_id(gateway: Gateway, store: JobStore, queue: VoiceQueue) -> None:
    """Or all of them; unknown ids are counted."""
    for batch in ("one", "one", "two"):
        job_in_state(store, State.SUCCEEDED, voice(batch=batch, callback_url=HOOK))
    ids = [callback.id for callback in queue.callbacks()]
    for callback_id in ids:
        store.callbacks.claim([callback_id], NOW, lease_s=9)
        store.callbacks.mark_undelivered(callback_id, NOW, "gone", is_attempted=True)
    assert [len(page) for page in all_pages(gateway, "/v1/callbacks", limit=2)] == [2, 1]
    assert len(gateway.get("/v1/callbacks?batch=two")["data"]) == 1

    one = gateway.get("/v1/callbacks?batch=one")["data"][0]["id"]

    by_batch = gateway.post("/v1/redeliver", {"batch": "two"})
    by_id = gateway.post("/v1/redeliver", {"callback_ids": [one, "none"]})
    rest = gateway.post("/v1/redeliver", {})

    counts = [answer.json() for answer in (by_batch, by_id, rest)]
    assert [(count["redelivered"], count["missing"]) for count in counts] == [(1, 0), (1, 1), (1, 0)]
    problem(gateway.post("/v1/redeliver", {"batch": "one", "callback_ids": ids}), 422, "invalid")


# ── voices, limits, rejected messages, budgets ────────────────────────────────────────────────────────


def test_voices_are_listed_found_and_forgotten(gateway: Gateway, store: JobStore) -> None:
    """A forgotten one is not listed any longer, and forgetting it again is 404."""
    for name in ("ana", "bo"):
        created = job_in_state(store, State.PENDING, voice(audio_url=f"https://a.example/{name}.wav", reuse=True))
        fields = {"persona_id": f"p-{name}", "voice_name": name, "settled": str(NOW)}
        apply_transition(store, created, State.SUCCEEDED, fields=fields)

    pages = all_pages(gateway, "/v1/personas", limit=1)
    answer = gateway("DELETE", "/v1/personas/p-ana", key="operate")

    assert sorted(persona["persona_id"] for page in pages for persona in page) == ["p-ana", "p-bo"]
    assert [persona["voice_name"] for persona in gateway.get("/v1/personas?search=p-bo")["data"]] == ["bo"]
    assert (answer.status_code, answer.text) == (204, "")
    assert gateway.get("/v1/personas?search=p-ana")["data"] == []
    problem(gateway("DELETE", "/v1/personas/p-none"), 404, "persona_not_found")


def test_limits_are_read_and_set(gateway: Gateway, queue: VoiceQueue) -> None:
    """Omitted ones stay, null returns one to the settings, and a value that is none is named."""
    before = gateway.get("/v1/limits", key="read")
    changed = gateway("PATCH", "/v1/limits?reason=slow", json={"in_flight": 7, "submit_rate": 30}, key="operate")

    assert (changed.status_code, changed.json()) == (200, {**before, "in_flight": 7, "submit_rate": 30})
    assert gateway("PATCH", "/v1/limits", json={}).json() == changed.json()
    reset = gateway("PATCH", "/v1/limits", json={"in_flight": None, "submit_rate": 0}).json()
    assert (reset["in_flight"], reset["submit_rate"]) == (before["in_flight"], None)
    assert problem(gateway("PATCH", "/v1/limits", json={"submit_rate": 0.001}), 422, "invalid").keys() == {
        "submit_rate"
    }
    assert queue.audit_log(action="set_limits").items[-1].reason == "slow"
    problem(gateway("PATCH", "/v1/limits", json={"in_flight": 7}, key="read"), 403, "forbidden")


def test_rejected_messages_are_listed_page_by_page(gateway: Gateway, store: JobStore) -> None:
    """Newest first, of all namespaces, although their ids may be anything."""
    for number in range(5):
        namespace = "shop" if number % 2 else ""
        store.rejected_messages.add(RejectedMessage(NOW + number, f"§{number}", "t", "why", {}, namespace))

    pages = all_pages(gateway, "/v1/rejected-messages", limit=2)

    assert [[message["message_id"] for message in page] for page in pages] == [["§4", "§3"], ["§2", "§1"], ["§0"]]
    assert len(gateway.get("/v1/rejected-messages?namespace=shop")["data"]) == 2
    [rejected] = gateway.get("/v1/rejected-messages?message_id=%C2%A73")["data"]
    assert rejected["message_id"] == "§3"


def test_a_budget_has_a_callback(gateway: Gateway, queue: VoiceQueue, store: JobStore) -> None:
    """It stays when it is not sent, and null removes it; a URL that is none is named."""

    def put(**limits: Any) -> Any:
        return gateway("PUT", "/v1/budgets/account", json={"day": 500, **limits})

    def url() -> Any:
        return [entry.details.get("url") for entry in queue.audit_log(action="set_budget_callback").items]

    assert put(callback_url=HOOK).status_code == 200
    assert put().status_code == 200
    assert url() == ["shop.example"]
    assert put(callback_url=None).status_code == 200
    assert len(url()) == 2
    assert problem(put(callback_url="nowhere"), 422, "invalid").keys() == {"callback_url"}


def test_a_batch_without_jobs_has_settings(gateway: Gateway) -> None:
    """A change returns them; the batch itself exists with its first job."""
    batch = gateway("PATCH", "/v1/batches/later", json={"max_credits": 5}).json()

    assert (batch["name"], batch["max_credits"], batch["total"], batch["settled"]) == ("later", 5, 0, True)
    problem(gateway("GET", "/v1/batches/later"), 404, "batch_not_found")
    gateway.post("/v1/jobs", {"audio_url": "https://a.example/a.wav", "batch": "later"})
    assert gateway.get("/v1/batches/later") == {**batch, **gateway.get("/v1/batches/later"), "max_credits": 5}


#: Cursors of batches and of callbacks, the latter with a score that is no number of Redis.
OF_BATCHES, OF_CALLBACKS = "WyJiYXRjaGVzIiwiIiwiIl0", "WyJ1bmRlbGl2ZXJlZCIsIngiLDFlOTk5OV0"


@pytest.mark.parametrize("cursor", ["nonsense", "W10", OF_BATCHES, OF_CALLBACKS])
def test_the_cursor_of_another_list_is_an_invalid_field(gateway: Gateway, cursor: str) -> None:
    """The same problem on every list; the start of a list is no error."""
    for path in ("jobs", "batches", "callbacks", "personas", "reviews", "rejected-messages", "audit-log"):
        answer = gateway("GET", f"/v1/{path}", params={"cursor": cursor})
        if (path, cursor) in {("batches", OF_BATCHES), ("callbacks", OF_CALLBACKS)}:
            assert answer.status_code == 200
        else:
            assert problem(answer, 422, "invalid").keys() == {"cursor"}
