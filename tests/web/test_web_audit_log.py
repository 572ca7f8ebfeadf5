"""The audit log over HTTP and on the page: each changing route names its caller, and operators read and export it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts

from tests.store.client import audited_calls
from tests.store.client.audited_calls import failed, paused, queued, unsure, with_persona
from tests.store.life import NOW, get_job, job_in_state
from tests.store.outbox.callback_steps import claim_due, voice_with_callback
from tests.web.conftest import KEYS, Build, Gateway, app_of, problem
from tests.web.seen import PageUser, log_in
from voicequeue import AuditEntry, State, VoiceQueue
from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import Scope
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.rejected_messages import RejectedMessage

pytestmark = pytest.mark.shared_gateway

JOB = "/v1/jobs/{job_id}"


def nothing(_: JobStore) -> None:
    """Leave the store empty."""


def undelivered(store: JobStore) -> str:
    """Return the id of a job whose callback was given up."""
    job = job_in_state(store, State.SUCCEEDED, voice_with_callback())
    [claim] = claim_due(store.callbacks)
    store.callbacks.mark_undelivered(claim.id, NOW, "410", is_attempted=True)
    return job.id


def rejected_one(store: JobStore) -> None:
    """Store a rejected message."""
    store.rejected_messages.add(RejectedMessage(NOW, "m-1", "voicequeue.enqueue", "no audio_url", {}))


def with_key(store: JobStore) -> None:
    """Store an API key `b`."""
    store.api_keys.write(api_keys.generate_key("b", [Scope.READ])[1], before="")


Case = tuple[str, str, Callable[[JobStore], Any], str, dict[str, Any]]

#: Each route that changes something: method, path, what the store needs, the recorded action, and the body.
API: list[Case] = [
    ("POST", f"{JOB}/cancel", queued, "cancel", {}),
    ("POST", f"{JOB}/retry", failed, "retry", {}),
    ("POST", "/v1/cancel", queued, "cancel", {"filter": {"batch": "b"}}),
    ("POST", "/v1/retry", failed, "retry", {"filter": {"batch": "b"}}),
    ("POST", "/v1/pause", nothing, "pause", {}),
    ("POST", "/v1/resume", paused, "resume", {}),
    ("PATCH", "/v1/batches/{name}", nothing, "set_batch_limits", {"max_credits": 5}),
    ("POST", "/v1/keys", nothing, "create_api_key", {"name": "shop", "scopes": ["read"]}),
    ("PATCH", "/v1/keys/{name}", with_key, "edit_api_key", {"requests_per_s": 5}),
    ("POST", "/v1/keys/{name}/rotate", with_key, "rotate_api_key", {}),
    ("POST", "/v1/keys/{name}/revoke", with_key, "revoke_api_key", {}),
    ("PUT", "/v1/budgets/{owner:path}", nothing, "set_budget", {"day": 5}),
    ("POST", f"{JOB}/review", unsure, "abandon", {"decision": "abandon", "attempt": 1}),
    ("POST", "/v1/callbacks/{callback_id}/redeliver", audited_calls.undelivered, "redeliver_callbacks", {}),
    ("POST", "/v1/redeliver", undelivered, "redeliver_callbacks", {}),
    ("DELETE", "/v1/personas/{persona_id}", with_persona, "forget_persona", {}),
    ("PATCH", "/v1/limits", nothing, "set_limits", {"in_flight": 7}),
]

#: Each form of the page that changes something.
PAGE: list[Case] = [
    ("POST", "/job/{job_id}/cancel", queued, "cancel", {}),
    ("POST", "/job/{job_id}/retry", failed, "retry", {}),
    ("POST", "/job/{job_id}/review", unsure, "resubmit", {"decision": "resubmit", "attempt": "1"}),
    ("POST", "/job/{job_id}/redeliver", undelivered, "redeliver_callbacks", {}),
    ("POST", "/callbacks/redeliver", undelivered, "redeliver_callbacks", {"all": "1", "until": "9e9"}),
    ("POST", "/rejected-messages/delete", rejected_one, "clear_rejected_messages", {}),
    ("POST", "/do/execute", queued, "cancel", {"action": "cancel"}),
    ("POST", "/do/pause", nothing, "pause", {}),
    ("POST", "/do/resume", paused, "resume", {}),
    ("POST", "/do/limits", nothing, "set_limits", {"in_flight": "7"}),
    ("POST", "/do/batch", queued, "set_batch_limits", {"batch": "b", "max_credits": "5"}),
]

#: Routes that enqueue jobs, which name their source, routes that change nothing of the queue, the callback secret,
#: which has its test in test_web_callback_secrets.py, and the pages of API keys and erasures, which have theirs in
#: test_web_page_keys.py, test_web_erasure.py and test_web_page_erasure.py.
OTHERS = {
    ("POST", "/v1/erase"),
    ("POST", "/erase/plan"),
    ("POST", "/erase/execute"),
    ("POST", "/keys/new"),
    ("POST", "/key/{name}"),
    ("POST", "/key/{name}/rotate"),
    ("POST", "/key/{name}/revoke"),
    ("POST", "/v1/callback-secret"),
    ("POST", "/v1/jobs"),
    ("POST", "/v1/batches/{name}/jobs"),
    ("POST", "/hooks/musicapi/{job_id}/{stage}"),
    ("POST", "/do/plan"),
    ("POST", "/callbacks/plan"),
    ("POST", "/login"),
    ("POST", "/logout"),
}


def log(queue: VoiceQueue) -> list[AuditEntry]:
    """Return the entries, the latest first."""
    return list(queue.audit_log().items)


def test_every_route_that_may_change_something_is_tested(gateway: Gateway) -> None:
    """A new route needs a case in API or PAGE."""
    routes = {
        (method, (context.path or "").replace("{action}", action))
        for context in iter_route_contexts(app_of(gateway).routes)
        for method in context.methods or ()
        for action in ("cancel", "retry")
    }

    changing = {route for route in routes if route[0] not in ("GET", "HEAD", "OPTIONS")}
    assert changing == {(method, path) for method, path, *_ in API + PAGE} | OTHERS


@pytest.mark.parametrize(("method", "path", "prepare", "action", "body"), API)
def test_a_change_by_a_route_names_the_key_and_the_address(
    gateway: Gateway,
    queue: VoiceQueue,
    store: JobStore,
    method: str,
    path: str,
    prepare: Callable[[JobStore], Any],
    action: str,
    body: dict[str, Any],
) -> None:
    """It also has the reason in the query."""
    gateway.stage.client = ("203.0.113.7", 9)
    path = path.replace("{owner:path}", "account")
    prepared = prepare(store)
    url = path.format(job_id=prepared, callback_id=prepared, name="b", persona_id="p-1") + "?reason=asked"

    answer = gateway(method, url, json=body)
    if "filter" in body:
        assert log(queue) == []
        answer = gateway(method, url, json={"token": answer.json()["token"]})

    assert answer.status_code < 300, answer.text
    [entry] = log(queue)
    assert (entry.actor, entry.address, entry.action, entry.reason) == ("key:all", "203.0.113.7", action, "asked")


@pytest.mark.parametrize(("method", "path", "prepare", "action", "body"), PAGE)
def test_a_change_on_the_page_names_the_user(
    gateway: Gateway,
    queue: VoiceQueue,
    store: JobStore,
    method: str,
    path: str,
    prepare: Callable[[JobStore], Any],
    action: str,
    body: dict[str, Any],
) -> None:
    """It also has the reason in the form."""
    user = PageUser(gateway, "all")
    gateway.stage.client = ("203.0.113.7", 9)
    job_id = prepare(store)
    url = path.format(job_id=job_id)
    token = user.page("/").forms[1]["fields"]["token"]
    if action == "retry" and "{job_id}" in path:
        body = {"version": str(queue.get(job_id).version)}
    elif path == "/do/execute":
        planned = user.post("/do/plan", {"token": token, "action": "cancel", "batch": "b"}).text
        body = {**body, "plan": planned.partition('name="plan" value="')[2].partition('"')[0]}

    answer = user.post(url, {"token": token, "reason": "asked", **body})

    assert answer.status_code == 200, answer.text
    [entry] = log(queue)
    assert (entry.actor, entry.address, entry.action) == ("page:all", "203.0.113.7", action)
    assert entry.reason.startswith("asked")


# ── the scope `review` ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def two_keys(build_gateway: Build, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """Return a gateway with keys that may read, and operate or review besides."""
    for name in ("operate", "review"):
        key = api_keys.generate_key(name, [Scope.READ, Scope(name)])
        monkeypatch.setitem(KEYS, name, key)
    return build_gateway(api_keys=",".join(configured.as_setting() for _, configured in KEYS.values()))


@pytest.mark.parametrize(
    "body", [{"decision": "resubmit"}, {"decision": "abandon"}, {"decision": "confirm", "task_id": "t"}]
)
def test_a_review_needs_the_scope_review(two_keys: Gateway, store: JobStore, body: dict[str, str]) -> None:
    """It may pay twice: a key that may pause and cancel may not do that."""
    job_id = unsure(store)
    operator, reviewer = PageUser(two_keys, "operate"), PageUser(two_keys, "review")

    assert operator.page(f"/job/{job_id}/review", status=403)
    assert f"/job/{job_id}/review" not in operator.page(f"/job/{job_id}").links()
    for user, status in ((operator, 403), (reviewer, 200)):
        token = user.page("/").forms[1]["fields"]["token"]
        answer = user.post(f"/job/{job_id}/review", {"token": token, "attempt": "1", **body})
        assert answer.status_code == status
    assert get_job(store, job_id).state is not State.UNSURE


def test_a_reviewer_may_not_pause_or_cancel(two_keys: Gateway, store: JobStore) -> None:
    """No scope includes another."""
    job_id = queued(store)
    user = PageUser(two_keys, "review")
    token = user.page("/").forms[1]["fields"]["token"]

    for path in ("/do/pause", f"/job/{job_id}/cancel"):
        assert user.post(path, {"token": token}).status_code == 403
    assert user.page("/audit-log", status=403)


def test_resubmitting_by_a_retry_needs_both_scopes(two_keys: Gateway, store: JobStore) -> None:
    """Singly and in bulk, over HTTP and on the page; a retry that does not resubmit needs `operate` alone."""
    job_id = failed(store)
    plan = {"filter": {"batch": "b"}, "resubmit": True}
    user = PageUser(two_keys, "operate")
    token = user.page("/").forms[1]["fields"]["token"]

    problem(two_keys("POST", f"/v1/jobs/{job_id}/retry?resubmit=true", key="operate"), 403, "forbidden")
    problem(two_keys.post("/v1/retry", plan, key="operate"), 403, "forbidden")
    assert user.post(f"/job/{job_id}/retry", {"token": token, "resubmit": "1"}).status_code == 403
    assert user.post("/do/plan", {"token": token, "action": "retry", "batch": "b", "resubmit": "1"}).status_code == 403
    planned = two_keys.post("/v1/retry", plan, key="all").json()["token"]
    problem(two_keys.post("/v1/retry", {"token": planned}, key="operate"), 404, "plan_not_found")
    assert user.post("/do/execute", {"token": token, "action": "retry", "plan": planned}).status_code == 404
    assert get_job(store, job_id).state is State.FAILED
    assert two_keys("POST", f"/v1/jobs/{job_id}/retry", key="operate").status_code == 200


# ── reading ───────────────────────────────────────────────────────────────────────────────────────


def test_the_log_is_read_over_http(gateway: Gateway, queue: VoiceQueue) -> None:
    """Page by page, with the filters of the library."""
    for number in range(3):
        queue.on_behalf_of("cli:ana@desk", reason="test").set_batch_limits("b", max_credits=number)
    queue.pause()

    page = gateway.get("/v1/audit-log?actor=cli&batch=b&limit=2", key="operate")
    rest = gateway.get(f"/v1/audit-log?actor=cli&batch=b&cursor={page['next_cursor']}", key="operate")

    assert [entry["details"]["max_credits"] for entry in page["data"] + rest["data"]] == [2, 1, 0]
    assert (rest["next_cursor"], page["data"][0]["reason"]) == (None, "test")
    assert gateway.get("/v1/audit-log?since=2100-01-01", key="operate")["data"] == []
    assert list(problem(gateway("GET", "/v1/audit-log?cursor=x"), 422, "invalid")) == ["cursor"]


def test_the_log_is_shown_and_exported_on_the_page(gateway: Gateway, queue: VoiceQueue) -> None:
    """An export has every entry that matches, and nothing that a spreadsheet program evaluates."""
    ana = queue.on_behalf_of("cli:ana@desk", reason="=HYPERLINK(1)")
    for number in range(60):
        ana.set_batch_limits("b", max_credits=number)
    queue.pause(reason="<b>alarm</b>")
    user = PageUser(gateway, "all")

    first = user.page("/audit-log")
    filtered = user.page("/audit-log?action=pause")
    exported = user.session.get(f"{gateway.url}/audit-log.csv?actor=cli", timeout=10)

    assert "/audit-log" in user.page("/").links()
    assert "<b>alarm</b>" in first.text
    assert [link for link in first.links() if "cursor=" in link]
    assert "max_credits" not in filtered.text
    rows = list(csv.DictReader(StringIO(exported.text)))
    assert [row["details"] for row in rows] == [f"max_credits: {number}" for number in reversed(range(60))]
    assert {row["reason"] for row in rows} == {"'=HYPERLINK(1)"}
    assert user.page("/audit-log?since=yesterday", status=422)


def test_readers_do_not_see_the_log(gateway: Gateway) -> None:
    """It names people and addresses; the page does not offer it to them."""
    user = PageUser(gateway, "read")

    assert "/audit-log" not in user.page("/").links()
    for path in ("/audit-log", "/audit-log.csv"):
        assert user.session.get(gateway.url + path, timeout=10).status_code == 403
    assert log_in(gateway, KEYS["read"][0]).status_code == 303
