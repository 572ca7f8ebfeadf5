"""Access control: API keys, their scopes, and a gateway without configured keys."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from config.settings import Settings, SettingsError
from tests.conftest import eventually
from tests.support.jobs import LYRICS
from tests.web.conftest import KEYS, SETTING, Build, Gateway, app_of, problem
from tests.web.seen import PageUser
from voicequeue import VoiceQueue
from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import Scope
from workers import local_token
from workers.gateway.app import create_access

pytestmark = pytest.mark.shared_gateway

#: Every route and the scope that it needs.
ROUTES = [
    ("GET", "/v1/keys", Scope.ADMIN),
    ("POST", "/v1/keys", Scope.ADMIN),
    ("PATCH", "/v1/keys/b", Scope.ADMIN),
    ("POST", "/v1/keys/b/rotate", Scope.ADMIN),
    ("POST", "/v1/keys/b/revoke", Scope.ADMIN),
    ("POST", "/v1/erase", Scope.ADMIN),
    ("POST", "/v1/jobs", Scope.ENQUEUE),
    ("POST", "/v1/batches/b/jobs", Scope.ENQUEUE),
    ("PATCH", "/v1/batches/b", Scope.ENQUEUE),
    ("POST", "/v1/callback-secret", Scope.ENQUEUE),
    ("GET", "/v1/jobs", Scope.READ),
    ("GET", "/v1/jobs/x", Scope.READ),
    ("GET", "/v1/batches", Scope.READ),
    ("GET", "/v1/batches/b", Scope.READ),
    ("GET", "/v1/status", Scope.READ),
    ("GET", "/v1/rejected-messages", Scope.READ),
    ("GET", "/v1/events", Scope.READ),
    ("GET", "/metrics", Scope.READ),
    ("POST", "/v1/jobs/x/cancel", Scope.OPERATE),
    ("POST", "/v1/jobs/x/retry", Scope.OPERATE),
    ("POST", "/v1/cancel", Scope.OPERATE),
    ("POST", "/v1/retry", Scope.OPERATE),
    ("POST", "/v1/pause", Scope.OPERATE),
    ("POST", "/v1/resume", Scope.OPERATE),
    ("GET", "/v1/audit-log", Scope.OPERATE),
    ("GET", "/v1/budgets", Scope.READ),
    ("PUT", "/v1/budgets/account", Scope.OPERATE),
    ("GET", "/v1/spend", Scope.READ),
    ("GET", "/v1/reviews", Scope.READ),
    ("GET", "/v1/jobs/x/review", Scope.READ),
    ("POST", "/v1/jobs/x/review", Scope.REVIEW),
    ("GET", "/v1/callbacks", Scope.READ),
    ("GET", "/v1/callbacks/c", Scope.READ),
    ("POST", "/v1/callbacks/c/redeliver", Scope.OPERATE),
    ("POST", "/v1/redeliver", Scope.OPERATE),
    ("GET", "/v1/personas", Scope.READ),
    ("DELETE", "/v1/personas/p", Scope.OPERATE),
    ("GET", "/v1/limits", Scope.READ),
    ("PATCH", "/v1/limits", Scope.OPERATE),
]
#: What the placeholders of paths are in ROUTES.
NAMES = {"job_id": "x", "name": "b", "owner": "account", "callback_id": "c", "persona_id": "p"}
EVERY_ROUTE = pytest.mark.parametrize(("method", "path", "scope"), ROUTES)


def test_every_route_is_tested(gateway: Gateway) -> None:
    """A new route must be added to ROUTES."""
    described = {
        (method.upper(), path.format_map(NAMES))
        for path, methods in app_of(gateway).openapi()["paths"].items()
        for method in methods
        if path.startswith("/v1") or path == "/metrics"
    }

    assert described == {(method, path) for method, path, _ in ROUTES}


@EVERY_ROUTE
def test_no_key_and_a_wrong_key_get_the_same_response(gateway: Gateway, method: str, path: str, scope: Scope) -> None:
    """It is 401, identical byte for byte, before the rest of the request is read."""
    wrong = [
        {},
        {"Authorization": "Bearer vq_wrong"},
        {"Authorization": f"Bearer {KEYS['all'][0]}x"},
        {"Authorization": "Bearer " + KEYS["all"][1].digest},
        {"Authorization": "Basic " + KEYS["all"][0]},
        {"Authorization": "Bearer s\xe9same"},
    ]

    answers = [gateway(method, path, key=None, headers=headers, data=b"{" * 9) for headers in wrong]

    for answer in answers:
        problem(answer, 401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert len({answer.content for answer in answers}) == 1


@EVERY_ROUTE
def test_a_key_without_the_scope_is_refused(gateway: Gateway, method: str, path: str, scope: Scope) -> None:
    """The response is 403 and names the scope, whether or not the job exists."""
    for other in set(Scope) - {scope}:
        answer = gateway(method, path, key=other.value, data=b"{" * 9)
        problem(answer, 403, "forbidden")
        assert f'scope="{scope}"' in answer.headers["WWW-Authenticate"]


@EVERY_ROUTE
def test_a_key_with_the_scope_is_accepted(gateway: Gateway, method: str, path: str, scope: Scope) -> None:
    """The route handles the request."""
    answer = gateway(method, path, key=scope.value, stream=True)
    answer.close()

    assert answer.status_code not in (401, 403)


def test_health_and_documentation_need_no_key(gateway: Gateway) -> None:
    """Load balancers and readers have none."""
    for path in ("/healthz", "/docs", "/openapi.json"):
        assert gateway("GET", path, key=None).status_code == 200
    assert gateway("GET", "/readyz", key=None).status_code == 503  # no worker


@pytest.mark.parametrize(
    "secret", ["", "vq_unknown", KEYS["all"][0], KEYS["operate"][0]], ids=["none", "unknown", "first", "last"]
)
def test_every_hash_is_compared_for_every_key(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking takes the same time for no key, an unknown one, the first and the last."""
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def watched(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    api_keys.find_key(api_keys.parse_keys(SETTING), secret)

    assert compared == [(64, 64)] * len(KEYS)


# ── without configured keys ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_the_local_token_is_accepted_from_this_machine(keyless: Gateway, host: str) -> None:
    """Any loopback address counts; the token has every scope."""
    keyless.stage.client = (host, 9)

    assert keyless("GET", "/v1/status", key="local").status_code == 200
    assert keyless("GET", "/metrics", key="local").status_code == 200
    assert keyless("POST", "/v1/pause", key="local").status_code == 200


def test_without_the_local_token_every_request_is_refused(keyless: Gateway) -> None:
    """Other users, pages and proxies of this machine may seem local, but only its user has the token."""
    for method, path, _ in ROUTES:
        for headers in ({}, {"Authorization": "Bearer vq_wrong"}, {"Authorization": f"Bearer {KEYS['all'][0]}"}):
            answer = keyless(method, path, key=None, headers=headers)
            problem(answer, 401, "unauthorized")
            assert "local token" in answer.text
            assert ". .voicequeue/env" in answer.text


@pytest.mark.parametrize("client", [("192.0.2.7", 9), ("10.0.0.1", 9), ("::ffff:10.0.0.1", 9), ("testclient", 9), None])
def test_the_local_token_is_refused_from_other_machines(keyless: Gateway, client: tuple[str, int] | None) -> None:
    """No header changes that; the response says what to do."""
    keyless.stage.client = client

    for headers in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"Host": "localhost"}):
        answer = keyless("GET", "/v1/status", key="local", headers=headers)
        problem(answer, 403, "local_only")
        assert ("a proxy" if "X-Forwarded-For" in headers else "another machine") in answer.text
        assert "voicequeue keys new" in answer.text


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"X-Forwarded-For": "127.0.0.1"}, "a proxy"),
        ({"Forwarded": "for=127.0.0.1"}, "a proxy"),
        ({"X-Real-IP": "127.0.0.1"}, "a proxy"),
        ({"Via": "1.1 proxy"}, "a proxy"),
        ({"Host": "voices.example"}, "(Host)"),
        ({"Host": "127.0.0.1.voices.example"}, "(Host)"),
        ({"Host": "[::"}, "(Host)"),
        ({"Host": "evil@localhost"}, "(Host)"),
        ({"Host": "localhost#evil"}, "(Host)"),
        ({"Host": "localhost/evil"}, "(Host)"),
        ({"Host": "localhost:1:evil"}, "(Host)"),
    ],
)
def test_proxies_and_other_host_names_are_not_this_machine(
    keyless: Gateway, headers: Mapping[str, str], reason: str
) -> None:
    """Their connections are local, their requests are not; the response names the reason."""
    answer = keyless("POST", "/v1/jobs/x/cancel", key="local", headers=headers)

    problem(answer, 403, "local_only")
    assert reason in answer.text


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"WEB_ADDRESS": "0.0.0.0"}, "WEB_ADDRESS"),
        ({"WEB_ADDRESS": "192.0.2.7"}, "WEB_ADDRESS"),
        ({"WEB_ADDRESS": ""}, "WEB_ADDRESS"),
        ({"public_url": "https://voices.example"}, "VOICEQUEUE_PUBLIC_URL"),
        ({"public_url": "https://localhost@voices.example/"}, "VOICEQUEUE_PUBLIC_URL"),
        ({"local_token_file": None}, "make up"),
    ],
)
def test_a_public_gateway_without_keys_refuses_every_request(
    build_gateway: Build, token_file: Path, settings: dict[str, Any], reason: str
) -> None:
    """This includes requests from this machine with the token; the response names the setting."""
    gateway = build_gateway(**{"api_keys": "", "local_token_file": token_file, **settings})

    for path in ("/v1/status", "/metrics"):
        answer = gateway("GET", path, key="local")
        problem(answer, 403, "local_only")
        assert reason in answer.text
    for path in ("/", "/login", "/controls", gateway.link().removeprefix(gateway.url)):
        page = gateway("GET", path, key=None, allow_redirects=False)
        assert (page.status_code, "Set-Cookie" in page.headers) == (403, False)
        assert reason in page.text
    assert gateway("GET", "/healthz", key=None).status_code == 200


@pytest.mark.parametrize(
    "settings", [{"WEB_ADDRESS": "localhost"}, {"WEB_ADDRESS": "::1"}, {"public_url": "http://127.0.0.1:9/hooks"}]
)
def test_other_names_of_this_machine_are_accepted(
    build_gateway: Build, token_file: Path, settings: dict[str, Any]
) -> None:
    """This holds for the listening address and for the public URL of the simulator."""
    gateway = build_gateway(api_keys="", local_token_file=token_file, **settings)

    assert gateway("GET", "/v1/status", key="local").status_code == 200


def test_own_pages_may_send_requests(keyless: Gateway) -> None:
    """The page /docs does so with the token."""
    assert keyless("GET", "/v1/status", key="local", headers={"Origin": keyless.url}).status_code == 200


def test_with_configured_keys_the_local_token_is_invalid(build_gateway: Build, token_file: Path) -> None:
    """This holds for the API and for links to the page."""
    gateway = build_gateway(local_token_file=token_file)

    problem(gateway("GET", "/v1/status", key="local"), 401, "unauthorized")
    answer = requests.get(gateway.link(), timeout=10, allow_redirects=False)
    assert answer.headers["Location"] == "/login?next=%2F&by=link"
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("wrong", ["readable", "empty", "short", "missing", "link", "folder", "pipe"])
def test_an_unsafe_token_file_prevents_the_start(tmp_path: Path, wrong: str) -> None:
    """The error names the setting and the file, and does not quote the token."""
    token, file = "t" * 43, tmp_path / "local_token"
    if wrong == "folder":
        file.mkdir()
    elif wrong == "pipe":
        os.mkfifo(file, 0o600)
    elif wrong != "missing":
        kept = file if wrong != "link" else tmp_path / "elsewhere"
        kept.touch(0o600)
        kept.write_text({"empty": "", "short": "t" * 31}.get(wrong, token))
        if wrong == "readable":
            kept.chmod(0o640)
        if wrong == "link":
            file.symlink_to(kept)

    with pytest.raises(SettingsError, match=r"VOICEQUEUE_LOCAL_TOKEN_FILE: .*local_token ") as error:
        create_access(Settings(_env_file=None, local_token_file=file))

    assert "ttt" not in str(error.value)


def test_a_local_token_is_kept_while_it_is_private(tmp_path: Path) -> None:
    """Otherwise it is replaced, in a new file."""
    file = tmp_path / "home" / "local_token"
    token = local_token.ensure(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert local_token.ensure(file) == token == local_token.read(file)

    file.chmod(0o644)
    fresh = local_token.ensure(file)

    assert fresh != token
    assert file.stat().st_mode & 0o777 == 0o600
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    file.unlink()
    file.symlink_to(elsewhere)
    local_token.ensure(file)
    assert not file.is_symlink()
    assert elsewhere.read_text() == ""


def test_with_configured_keys_every_address_is_accepted(gateway: Gateway) -> None:
    """Only the key matters."""
    gateway.stage.client = ("192.0.2.7", 9)

    assert gateway("GET", "/v1/status", headers={"Host": "voices.example", "Via": "1.1 x"}).status_code == 200
    problem(gateway("GET", "/v1/status", key=None), 401, "unauthorized")


@pytest.mark.parametrize(("setting", "warned"), [("", True), (SETTING, False)], ids=["without", "with"])
def test_a_start_without_keys_logs_a_warning(
    build_gateway: Build, caplog: pytest.LogCaptureFixture, setting: str, warned: bool
) -> None:
    """The warning names the setting; with keys there is none."""
    app = app_of(build_gateway(api_keys=setting))

    async def started() -> None:
        async with app.router.lifespan_context(app):
            pass

    with caplog.at_level(logging.WARNING, logger="voicequeue.gateway"):
        asyncio.run(started())

    warnings = [record for record in caplog.records if "VOICEQUEUE_API_KEYS" in record.getMessage()]
    assert len(warnings) == warned


def test_the_log_names_the_key_of_a_request(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """On the job page, it is the key of the session."""
    caplog.set_level("INFO", logger="voicequeue.http")
    person = PageUser(gateway, "operate")

    gateway("GET", "/v1/status", key="read")
    gateway("GET", "/v1/status", key=None)
    person.post("/do/pause", {})

    expected = {("/v1/status", "read"), ("/v1/status", None), ("/do/pause", "operate")}
    # A line is written after the response was sent.
    eventually(
        lambda: expected <= {(line.__dict__.get("path"), line.__dict__.get("key_name")) for line in caplog.records}
    )


def test_the_log_truncates_long_paths(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """Other headers of the caller are not logged."""
    caplog.set_level("INFO", logger="voicequeue.http")

    gateway("GET", f"/v1/jobs/{'x' * 5_000}", headers={"User-Agent": "SECRET", "Referer": "https://SECRET.example/"})

    eventually(lambda: any(line.__dict__.get("status") for line in caplog.records))
    [line] = [line.__dict__ for line in caplog.records if line.name == "voicequeue.http"]
    assert line["path"].startswith("/v1/jobs/xxx")
    assert len(line["path"]) <= 201
    assert "SECRET" not in str(line)


PRIVATE: dict[str, Any] = {"persona_id": "private-persona", "song": {"prompt": LYRICS}, "key": "order-7", "name": "Ana"}


def test_a_key_with_only_enqueue_sees_little_of_anothers_job(gateway: Gateway, queue: VoiceQueue) -> None:
    """A caller that guesses key and content gets the id and the state; so do rows."""
    job = gateway.post("/v1/jobs", {**PRIVATE, "batch": "spring"}, key="all").json()

    answer = gateway.post("/v1/jobs", {**PRIVATE, "batch": "spring"}, key="enqueue")
    rows = gateway(
        "POST",
        "/v1/batches/spring/jobs",
        key="enqueue",
        data=json.dumps(PRIVATE),
        headers={"Content-Type": "application/x-ndjson"},
    )

    assert (answer.status_code, "ETag" in answer.headers) == (200, False)
    assert answer.json() == {name: job[name] for name in ("id", "key", "state", "created_at", "further_job_ids")}
    assert json.loads(rows.text.splitlines()[0]) == {"line": 1, "outcome": "existing", "id": job["id"]}
    queue.cancel(job["id"])
    assert gateway.post("/v1/jobs", {**PRIVATE, "batch": "spring"}, key="enqueue").json()["state"] == "cancelled"


@pytest.mark.parametrize(("first", "second"), [("enqueue", "enqueue"), ("enqueue", "all"), ("all", "all")])
def test_the_submitter_and_readers_see_the_whole_job_again(gateway: Gateway, first: str, second: str) -> None:
    """A repeated request gets the same response."""
    answers = [gateway.post("/v1/jobs", PRIVATE, key=key) for key in (first, second)]

    assert [answer.status_code for answer in answers] == [202, 200]
    assert answers[0].json() == answers[1].json()
    assert answers[0].headers["ETag"] == answers[1].headers["ETag"]
