"""The limits of API keys in Redis: on every route of the API and of the page, for a key that is refused or slowed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import requests
from fastapi.routing import iter_route_contexts

from tests.support.jobs import voice
from tests.web.conftest import KEYS, Gateway, app_of, new_session, problem
from tests.web.seen import log_in
from voicequeue import ApiKey, KeyLimits, Priority, Scope, VoiceQueue
from voicequeue.storage.job_store import JobStore
from workers.gateway.security import key_registry

#: Paths that need neither a key nor a session, and those of the API, which its schema describes.
NOT_PAGES = re.compile(r"/(v1|hooks|static|docs|openapi\.json|metrics|healthz|readyz|login)\b.*")
NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(autouse=True)
def fresh_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each request see the keys as they are in Redis; a test of its own covers the delay."""
    monkeypatch.setattr(key_registry, "REFRESH_S", 0.0)


class Caller:
    """The holder of a key in Redis, who uses the API and is logged in to the page."""

    def __init__(self, gateway: Gateway, secret: str) -> None:
        self._gateway, self._headers = gateway, {"Authorization": f"Bearer {secret}"}
        self._cookies, self._session = log_in(gateway, secret).cookies, new_session()

    def api(self, method: str, path: str, *, headers: dict[str, str] | None = None, **more: Any) -> requests.Response:
        """Send a request of the API."""
        return self._gateway(method, path, key=None, headers={**self._headers, **(headers or {})}, **more)

    def page(self, method: str, path: str, fields: dict[str, str] | None = None) -> requests.Response:
        """Request a page, or send a form."""
        return self._session.request(
            method,
            self._gateway.url + path,
            data=fields,
            cookies=self._cookies,
            allow_redirects=False,
            timeout=10,
        )

    def form_token(self) -> str:
        """Return the token of the session's forms."""
        match = re.search(r'name="token" value="([^"]+)"', self.page("GET", "/").text)
        assert match
        return match[1]


def routes_of(gateway: Gateway) -> Iterator[tuple[str, str, bool]]:
    """Yield the method and path of every route that needs a key, and whether it is one of the page."""
    app = app_of(gateway)
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            if "security" in operation:
                yield method.upper(), re.sub(r"\{\w+\}", "x", path), False
    for context in iter_route_contexts(app.routes):
        path = context.path or ""
        if not NOT_PAGES.fullmatch(path):
            for method in (context.methods or set()) - {"HEAD"}:
                yield method, path.replace("{action}", "cancel").replace("{job_id}", "x"), True


def used_up(store: JobStore, key: ApiKey) -> None:
    """Let the key have used its requests."""
    store.api_keys.count_requests("shop", 0.001, store.clock())
    edit(store, key, limits=replace(key.limits, requests_per_s=0.001))


def edit(store: JobStore, key: ApiKey, **changes: Any) -> None:
    """Change the record only: logins must be refused because of the key, not because something has ended them."""
    assert store.api_keys.write(replace(key, **changes), before=store.api_keys.record(key.name))


ENDS: dict[str, Callable[[JobStore, ApiKey], None]] = {
    "used up": used_up,
    "expired": lambda store, key: edit(store, key, limits=replace(key.limits, expires_at=time.time() - 1)),
    "revoked": lambda store, key: edit(store, key, revoked_at=time.time()),
    "replaced": lambda store, key: edit(store, key, digest="0" * 64),
}


@pytest.mark.parametrize(
    "end", [end if end in ("used up", "revoked") else pytest.param(end, marks=pytest.mark.endurance) for end in ENDS]
)
def test_every_route_and_page_refuses_a_key_that_may_send_nothing(
    gateway: Gateway, queue: VoiceQueue, store: JobStore, end: str
) -> None:
    """A new route is covered by itself: it answers 429 and when to retry, 401, or with the login of the page."""
    created = queue.create_api_key("shop", Scope, namespace="*")
    caller = Caller(gateway, created.secret)
    assert caller.api("GET", "/v1/status").status_code == caller.page("GET", "/").status_code == 200
    ENDS[end](store, created.key)
    routes = list(routes_of(gateway))
    assert {(method, is_page) for method, _, is_page in routes} >= {("POST", True), ("GET", True), ("POST", False)}
    for method, path, is_page in routes:
        answer = (caller.page if is_page else caller.api)(method, path)
        if end == "used up":
            assert (answer.status_code, int(answer.headers["Retry-After"]) > 1) == (429, True), (method, path)
        elif is_page:
            assert answer.status_code == 303, (method, path)
            assert answer.headers["Location"].startswith("/login"), (method, path)
        else:
            problem(answer, 401, "unauthorized")


def test_a_login_counts_as_a_request(gateway: Gateway, queue: VoiceQueue) -> None:
    """So the page is no way around the limit."""
    created = queue.create_api_key("shop", Scope, namespace="*", limits=KeyLimits(requests_per_s=0.001))
    assert log_in(gateway, created.secret).status_code == 303

    assert log_in(gateway, created.secret).status_code == 429


def test_requests_beyond_the_rate_are_told_when_to_retry(gateway: Gateway, queue: VoiceQueue) -> None:
    """Those before are answered, also those that lack a scope; other keys are not slowed."""
    limits = KeyLimits(requests_per_s=3)
    secret = queue.create_api_key("slow", [Scope.READ], namespace="shop", limits=limits).secret
    headers = {"Authorization": f"Bearer {secret}"}

    answers = [gateway("GET", "/v1/status", key=None, headers=headers) for _ in range(2)]
    answers.append(gateway("POST", "/v1/jobs", key=None, headers=headers))
    assert [answer.status_code for answer in answers] == [200, 200, 403]
    while (refused := gateway("GET", "/v1/status", key=None, headers=headers)).status_code == 200:
        assert len(answers) < 100
        answers.append(refused)
    problem(refused, 429, "too_many_requests")
    assert refused.headers["Retry-After"] == "1"
    assert "3 requests a second" in refused.text
    assert gateway("GET", "/v1/status", key="read").status_code == 200


@pytest.fixture
def limited(gateway: Gateway, queue: VoiceQueue) -> Caller:
    """Return the holder of a key of the namespace `shop` whose jobs and batches are limited."""
    limits = KeyLimits(max_priority=Priority.NORMAL, batch_pattern="spring*")
    scopes = set(Scope) - {Scope.ADMIN}
    return Caller(gateway, queue.create_api_key("shop", scopes, namespace="shop", limits=limits).secret)


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"priority": "high", "batch": "spring"}, "priority"), ({"batch": "autumn"}, "batch"), ({}, "batch")],
)
def test_a_job_beyond_the_limits_of_its_key_is_refused(
    limited: Caller, queue: VoiceQueue, fields: dict[str, str], field: str
) -> None:
    """The error names the field, its value and what the key allows; others are enqueued."""
    job = voice().model_dump(mode="json", exclude_unset=True)

    refused = problem(limited.api("POST", "/v1/jobs", json={**job, **fields}), 422, "invalid")
    accepted = limited.api("POST", "/v1/jobs", json={**job, "priority": "normal", "batch": "spring-1"})

    assert refused.keys() == {field}
    assert "of this API key: " in refused[field]
    assert fields.get(field, "missing") in refused[field]
    assert accepted.status_code == 202
    assert [one.spec.batch for one in queue.jobs()] == ["spring-1"]


def test_rows_beyond_the_limits_of_their_key_are_rejected_one_by_one(limited: Caller, queue: VoiceQueue) -> None:
    """The other rows of the upload are enqueued."""
    rows = '{"audio_url": "https://a.example/1.wav", "priority": "%s"}\n'

    answer = limited.api(
        "POST", "/v1/batches/spring/jobs", data=rows % "high" + rows % "bulk", headers=NDJSON
    ).text.splitlines()

    assert '"field": "priority"' in answer[0]
    assert '"outcome": "new"' in answer[1]
    assert (
        '"outcome": "rejected"'
        in limited.api("POST", "/v1/batches/autumn/jobs", data=rows % "bulk", headers=NDJSON).text
    )
    assert len(list(queue.jobs())) == 1


def test_a_key_changes_only_batches_that_its_pattern_allows(
    limited: Caller, queue: VoiceQueue, valkey_url: str, prefix: str
) -> None:
    """On the API and on the page; its own ones it limits, pauses and resumes."""
    with VoiceQueue(valkey_url, prefix=prefix, namespace="shop") as own:
        own.enqueue_many([voice(key=batch, batch=batch) for batch in ("spring", "autumn")])
    token = limited.form_token()

    def statuses(batch: str) -> set[int]:
        form = {"token": token, "batch": batch}
        return {
            limited.api("PATCH", f"/v1/batches/{batch}", json={"max_credits": 1}).status_code,
            limited.api("POST", f"/v1/pause?batch={batch}").status_code,
            limited.api("POST", f"/v1/resume?batch={batch}").status_code,
            limited.page("POST", "/do/batch", {**form, "max_credits": "2"}).status_code,
            limited.page("POST", "/do/pause", form).status_code,
            limited.page("POST", "/do/resume", form).status_code,
        }

    assert statuses("autumn") == {422}
    assert statuses("spring") == {200, 303}
    changed = {entry.batch for entry in queue.audit_log().items}
    assert not [batch for batch in changed if batch and "autumn" in batch]


def test_an_expired_key_is_refused_and_shows_when_it_was_used(gateway: Gateway, queue: VoiceQueue) -> None:
    """From the second of its expiry, without a change."""
    limits = KeyLimits(expires_at=queue.status().at + 3600)
    created = queue.create_api_key("shop", [Scope.READ], namespace="shop", limits=limits)
    headers = {"Authorization": f"Bearer {created.secret}"}
    assert gateway("GET", "/v1/status", key=None, headers=headers).status_code == 200
    [shown] = gateway.get("/v1/keys", key="admin")["data"]
    assert shown["expires_at"] is not None
    assert shown["last_used_at"] is not None

    gateway("PATCH", "/v1/keys/shop", key="admin", json={"expires_at": "2020-01-01T00:00:00Z"})

    problem(gateway("GET", "/v1/status", key=None, headers=headers), 401, "unauthorized")


def test_a_rotated_key_accepts_both_secrets_during_the_overlap(gateway: Gateway) -> None:
    """Also after a second rotation, whose response may have been lost; without an overlap all of them end."""
    body = {"name": "shop", "scopes": ["read"], "namespace": "shop"}
    answers = [gateway.post("/v1/keys", body, key="admin")]
    answers += [gateway.post("/v1/keys/shop/rotate", {"overlap_s": 3600}, key="admin") for _ in range(2)]
    assert [answer.headers["Cache-Control"] for answer in answers] == ["no-store"] * 3
    secrets = [answer.json()["secret"] for answer in answers]

    def statuses() -> list[int]:
        headers = [{"Authorization": f"Bearer {secret}"} for secret in secrets]
        return [gateway("GET", "/v1/status", key=None, headers=of).status_code for of in headers]

    assert statuses() == [200, 200, 200]
    assert gateway.get("/v1/keys", key="admin")["data"][0]["rotating_until"] is not None

    statuses_of_rotations = [gateway.post("/v1/keys/shop/rotate", {}, key="admin").status_code for _ in range(3)]
    assert statuses_of_rotations == [200, 200, 409]
    secrets.append(gateway.post("/v1/keys/shop/rotate", {"overlap_s": 0}, key="admin").json()["secret"])
    assert statuses() == [401, 401, 401, 200]


def test_concurrent_edits_of_one_key_lose_nothing(gateway: Gateway, queue: VoiceQueue) -> None:
    """Each request changes the fields that it names, and no other one is lost."""
    queue.create_api_key("shop", [Scope.READ], namespace="shop")
    edits: list[dict[str, Any]] = [
        {"requests_per_s": 7},
        {"max_priority": "bulk"},
        {"batch_pattern": "a*"},
        {"expires_at": "2100-01-01T00:00:00Z"},
        {"scopes": ["enqueue"]},
    ]
    nothing: dict[str, Any] = dict.fromkeys(name for edit in edits for name in edit if name != "scopes")

    def send(body: dict[str, Any]) -> int:
        headers = {"Authorization": f"Bearer {KEYS['admin'][0]}"}
        return requests.patch(f"{gateway.url}/v1/keys/shop", json=body, headers=headers, timeout=20).status_code

    with ThreadPoolExecutor(len(edits)) as threads:
        for _ in range(5):
            assert send({**nothing, "scopes": ["read"]}) == 200
            assert set(threads.map(send, edits)) == {200}
            [key] = queue.api_keys()
            assert key.scopes == {Scope.ENQUEUE}
            assert key.limits == KeyLimits(7, Priority.BULK, "a*", 4_102_444_800)
