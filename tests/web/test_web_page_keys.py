"""The pages of API keys: what operators see and change, and that a secret is in one response only."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest
import requests
from redis import Redis

from tests.store.life import dump_keys
from tests.web.conftest import KEYS, Build, Gateway, app_of
from tests.web.seen import PageUser, ParsedPage, log_in
from voicequeue import ApiKey, KeyLimits, StoreUnavailableError, VoiceQueue
from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import Scope
from voicequeue.domain.spec import Priority
from workers.gateway.security.key_registry import KeyRegistry

NEW: dict[str, Any] = {
    "name": "shop",
    "namespace": "shop",
    "scope_enqueue": "on",
    "requests_per_s": "5",
    "max_priority": "normal",
    "batch_pattern": "shop-*",
    "expires_on": "2099-01-01",
    "max_in_flight": "2",
    "budget_day": "60",
    "budget_month": "600",
    "reason": "a new app",
}


def key_named(queue: VoiceQueue, name: str) -> ApiKey:
    """Return the key of this name."""
    return next(key for key in queue.api_keys() if key.name == name)


def secret_on(page: ParsedPage) -> str:
    """Return the secret that a page shows; '' if it shows none."""
    return next((word for word in page.text.split() if word.startswith("vq_")), "")


@pytest.fixture
def shop(queue: VoiceQueue) -> str:
    """Create the key `shop`, and return its secret."""
    return queue.create_api_key("shop", [Scope.READ], namespace="shop", limits=KeyLimits(5)).secret


# ── what it shows ─────────────────────────────────────────────────────────────────────────────────


def test_the_list_shows_each_key_with_its_state(gateway: Gateway, queue: VoiceQueue, shop: str) -> None:
    """It is filtered by state, and by a part of the name or namespace."""
    queue.create_api_key("old", [Scope.READ], namespace="*", limits=KeyLimits(expires_at=1))
    queue.create_api_key("gone", [Scope.READ], namespace="")
    queue.revoke_api_key("gone")
    gateway("GET", "/v1/jobs", key=None, headers={"Authorization": f"Bearer {shop}"})
    user = PageUser(gateway, "all")

    page = user.page("/keys")

    for part in ("gone revoked (default) read", "old expired all (*) read", "shop active shop read", "5 requests/s"):
        assert part in page.text
    assert " s ago" in page.text
    for query, names in (("state=active", ["shop"]), ("state=revoked", ["gone"]), ("q=SHOP", ["shop"]), ("q=zz", [])):
        assert [link for link in user.page(f"/keys?{query}").links() if "/key/" in link] == [f"/key/{n}" for n in names]
    assert (shop not in page.text, secret_on(page)) == (True, "")


def test_a_long_list_of_keys_has_pages(gateway: Gateway, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each key is on one of them, and the filter is kept."""
    monkeypatch.setattr("workers.gateway.page.keys.PAGE_SIZE", 2)
    for name in "abcde":
        queue.create_api_key(f"app-{name}", [Scope.READ], namespace=name)
    user, listed, path = PageUser(gateway, "all"), [], "/keys?q=app"
    while path:
        links = user.page(path).links()
        listed += [link for link in links if "/key/" in link]
        path = next((f"/keys{link}" for link in links if "cursor=" in link), "")

    assert listed == [f"/key/app-{name}" for name in "abcde"]


# ── changing ──────────────────────────────────────────────────────────────────────────────────────


def test_a_new_key_is_shown_once_and_works(gateway: Gateway, queue: VoiceQueue) -> None:
    """It has the limits of the form, and the audit log names its author and the reason."""
    user = PageUser(gateway, "all")

    page = user.submit(user.page("/keys/new"), "Create key", **NEW)

    secret, key = secret_on(page), key_named(queue, "shop")
    assert api_keys.find_key([key], secret) == key
    expiry = datetime(2099, 1, 1, tzinfo=UTC).timestamp()
    assert key.limits == KeyLimits(5, Priority.NORMAL, "shop-*", expiry, 2, 60, 600)
    assert (key.scopes, key.namespace) == (frozenset({Scope.READ, Scope.ENQUEUE}), "shop")
    entry = queue.audit_log().items[0]
    assert (entry.actor, entry.action, entry.reason) == ("page:all", "create_api_key", "a new app")


def test_a_secret_is_in_one_response_only(
    gateway: Gateway, queue: VoiceQueue, redis: Redis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither Redis nor a log, a URL, a header or another page has it, and browsers keep no copy."""
    caplog.set_level(logging.DEBUG)
    user = PageUser(gateway, "all")
    form = next(form for form in user.page("/keys/new").forms if form["action"] == "/keys/new")
    answers = [user.post("/keys/new", {**form["fields"], **NEW})]
    rotation = next(form for form in user.page("/key/shop/rotate").forms if "/rotate" in form["action"])
    answers.append(user.post("/key/shop/rotate", rotation["fields"]))
    later = " ".join(user.page(path).text for path in ("/", "/keys", "/key/shop", "/audit-log", "/key/shop/rotate"))

    for answer in answers:
        secret = secret_on(ParsedPage(answer.text))
        assert answer.text.count(secret) == 1
        assert (answer.status_code, answer.history, answer.headers["Cache-Control"]) == (200, [], "no-store")
        assert secret not in str(answer.headers) + answer.url + caplog.text + str(dump_keys(redis, prefix)) + later
        assert " data-still" in answer.text  # not fetched again


def test_an_invalid_form_is_shown_again_with_what_is_wrong(gateway: Gateway, queue: VoiceQueue, shop: str) -> None:
    """Nothing is created, and what was entered remains."""
    user = PageUser(gateway, "all")
    for fields, text in (
        ({"name": "shop"}, "'shop' was given before"),
        ({"name": "all"}, "VOICEQUEUE_API_KEYS"),
        ({"name": "a b"}, "must be 1 to 64"),
        ({"namespace": "a/b"}, "namespace"),
        ({"requests_per_s": "many"}, "must be a number, or empty; not 'many'"),
        ({"requests_per_s": "0"}, "requests_per_s-error"),
        ({"expires_on": "1 May"}, "must be a date such as 2030-03-01, or empty; not '1 May'"),
        ({"max_priority": "urgent"}, "max_priority-error"),
    ):
        page = user.submit(user.page("/keys/new"), "Create key", status=422, **{**NEW, "name": "new", **fields})
        assert text in page.text or any(attrs.get("id") == f"key-{text}" for _, attrs in page.elements)
        [form] = [form for form in page.forms if form["action"] == "/keys/new"]
        assert {name: form["fields"][name] for name in fields if name != "max_priority"}.items() <= fields.items()
    empty = {"token": user.page("/").forms[1]["fields"]["token"], "name": "new"}
    assert "choose at least one" in user.post("/keys/new", empty).text
    assert [key.name for key in queue.api_keys()] == ["shop"]


def test_only_what_the_form_changes_is_changed(gateway: Gateway, queue: VoiceQueue) -> None:
    """A limit that a form cannot show exactly stays as it is; an emptied field removes a limit."""
    limits = KeyLimits(1234.5678, Priority.BULK, "shop-*", 4_102_444_801.5, 2, 0, 600)
    queue.create_api_key("shop", [Scope.READ, Scope.ENQUEUE], namespace="shop", limits=limits)
    user = PageUser(gateway, "all")
    form = next(form for form in user.page("/key/shop").forms if form["action"] == "/key/shop")
    sent = {**form["fields"], "max_priority": "bulk", "batch_pattern": ""}
    del sent["scope_enqueue"]

    answer = user.post("/key/shop", sent)

    assert "API key shop is changed." in answer.text
    key = key_named(queue, "shop")
    assert (key.limits, key.scopes) == (replace(limits, batch_pattern=None), frozenset({Scope.READ}))


def test_a_key_is_revoked_after_confirmation(gateway: Gateway, queue: VoiceQueue, shop: str) -> None:
    """It is refused from then on, and can be neither changed nor restored."""
    user = PageUser(gateway, "all")

    page = user.submit(user.page("/key/shop/revoke"), "Revoke key", reason="the app is gone")

    assert "API key shop is revoked." in page.text
    assert key_named(queue, "shop").revoked_at
    assert queue.audit_log().items[0].reason == "the app is gone"
    assert [form["action"] for form in user.page("/key/shop").forms if "/key/" in form["action"]] == []
    for path in ("/key/shop/rotate", "/key/shop/revoke", "/key/nothing"):
        assert user.page(path, status=404)
    for path in ("/key/shop", "/key/shop/rotate", "/key/shop/revoke"):
        token = page.forms[1]["fields"]["token"]
        assert user.post(path, {"token": token, "scope_admin": "on"}).status_code == 404


@pytest.mark.parametrize("path", ["", "/rotate", "/revoke"])
def test_a_form_is_refused_if_the_key_has_changed(gateway: Gateway, queue: VoiceQueue, shop: str, path: str) -> None:
    """So a form that is sent twice rotates once: the secret in use remains valid for its overlap."""
    user = PageUser(gateway, "all")
    form = next(form for form in user.page(f"/key/shop{path}").forms if form["action"] == f"/key/shop{path}")
    queue.rotate_api_key("shop")
    before = key_named(queue, "shop")

    answer = user.post(f"/key/shop{path}", form["fields"])

    assert answer.status_code == 409
    assert "Load its page again" in answer.text
    assert key_named(queue, "shop") == before
    assert before.accepts(api_keys.hash_key(shop), 0.0)


def test_an_outage_does_not_cost_the_secret(
    gateway: Gateway, queue: VoiceQueue, shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page that shows it reads nothing more from Redis."""
    user = PageUser(gateway, "all")
    form = user.page("/key/shop/rotate")
    monkeypatch.setattr(VoiceQueue, "status", Mock(side_effect=StoreUnavailableError("away")))

    page = user.submit(form, "Rotate key")

    assert key_named(queue, "shop").accepts(api_keys.hash_key(secret_on(page)), 0.0)


def test_the_user_of_a_key_may_rotate_it(build_gateway: Build, queue: VoiceQueue) -> None:
    """The secret is shown although the rotation ends the login."""
    chief = queue.create_api_key("chief", list(Scope), namespace="*")
    gateway = build_gateway()
    user = PageUser(gateway, "all")
    user.session.cookies.update(log_in(gateway, chief.secret).cookies)

    page = user.submit(user.page("/key/chief/rotate"), "Rotate key", overlap_s="0")

    gateway = build_gateway()  # which has read the keys again
    assert log_in(gateway, secret_on(page)).status_code == 303
    assert log_in(gateway, chief.secret).status_code == 401
    assert "/login" in user.session.get(f"{gateway.url}/keys", timeout=10).url


# ── access ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("scopes", "namespace"), [(set(Scope) - {Scope.ADMIN}, "*"), (set(Scope) - {Scope.READ}, "*"), (set(Scope), "shop")]
)
def test_only_administrators_of_all_namespaces_see_keys(
    build_gateway: Build,
    queue: VoiceQueue,
    shop: str,
    scopes: set[Scope],
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Others are neither offered the pages nor may they open them or send their forms."""
    monkeypatch.setitem(KEYS, "other", api_keys.generate_key("other", scopes, namespace))
    gateway = build_gateway(api_keys=KEYS["other"][1].as_setting())
    user = PageUser(gateway, "other")
    before = queue.api_keys()

    for path in ("/keys", "/keys/new", "/key/shop", "/key/shop/rotate", "/key/shop/revoke", "/key/nothing"):
        assert "5 requests/s" not in user.page(path, status=403).text
        assert user.post(path, {**NEW, "name": "own"}).status_code in (403, 405)
    if Scope.READ in scopes:
        assert "/keys" not in user.page("/").links()
    assert queue.api_keys() == before


def test_the_first_key_ends_the_local_token(keyless: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """After that, only keys are accepted, and those from everywhere."""
    user = PageUser(keyless)

    assert "ends access with the local token" in user.page("/keys/new").text
    page = user.submit(user.page("/keys/new"), "Create key", **NEW)
    monkeypatch.setattr(KeyRegistry, "is_due", lambda _: True)  # instead of waiting for two seconds
    assert "/login" in user.session.get(f"{keyless.url}/", timeout=10).url
    assert "/login" in requests.get(keyless.link(), timeout=10).url
    assert log_in(keyless, secret_on(page)).status_code == 303


def test_keys_in_redis_alone_open_the_page(
    build_gateway: Build, queue: VoiceQueue, shop: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A gateway that has just started has read them before its first page, and reports no local access."""
    gateway = build_gateway(api_keys="", public_url="https://voices.example")

    async def start() -> None:
        app = app_of(gateway)
        async with app.router.lifespan_context(app):
            pass

    answer = gateway("GET", "/login", key=None, headers={"X-Forwarded-For": "203.0.113.7"})
    build_gateway(api_keys="", public_url="https://voices.example")
    asyncio.run(start())

    assert answer.status_code == 200
    assert log_in(gateway, shop).status_code == 303
    assert "local token" not in caplog.text
