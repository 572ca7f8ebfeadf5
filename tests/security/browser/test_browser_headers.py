"""Every response has the security headers for browsers, on every route and for every error."""

from __future__ import annotations

from http.client import HTTPResponse

import pytest
import requests
from requests.structures import CaseInsensitiveDict

from tests.security.network.raw_clients import connected
from tests.security.surface import operations
from tests.support.jobs import voice
from tests.web.conftest import Gateway, app_of
from tests.web.seen import PageUser
from voicequeue import VoiceQueue

pytestmark = pytest.mark.shared_gateway

FORM = (
    b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
NDJSON = {"Content-Type": "application/x-ndjson"}
EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def check_headers(answer: requests.Response) -> requests.Response:
    """Check that no site may embed the response, and that only scripts of this server run in it."""
    answer.close()
    request_line = f"{answer.request.method} {answer.request.url} {answer.status_code}"
    assert {name: answer.headers.get(name) for name in EVERYWHERE} == EVERYWHERE, request_line
    policy = dict(directive.strip().split(" ", 1) for directive in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] in ("'none'", "'self'"), request_line
    assert policy.get("script-src", "'self'") == "'self'", request_line
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'", request_line
    assert policy["form-action"] in ("'none'", "'self'"), request_line
    assert "unsafe" not in str(policy), request_line
    assert answer.headers["Cache-Control"] in ("no-store", "private, no-cache", "no-cache"), request_line
    assert not [name for name in answer.headers if name.startswith("Access-Control-")], request_line
    return answer


@pytest.mark.endurance
@pytest.mark.parametrize("key", [None, "all"])
def test_every_route_sends_the_headers(gateway: Gateway, key: str | None) -> None:
    """With and without a key, also for methods that the route does not have."""
    statuses = set()
    for method, path in operations(app_of(gateway)):
        for sent_method in (method, "OPTIONS", "BREW"):
            answer = check_headers(gateway(sent_method, path, key=key, stream=True, allow_redirects=False))
            statuses.add(answer.status_code)

    assert {401 if key is None else 415, 200, 405} <= statuses


@pytest.mark.endurance
def test_every_page_sends_the_headers(gateway: Gateway) -> None:
    """Also in a login session."""
    session = PageUser(gateway, "all").session
    for method, path in operations(app_of(gateway)):
        if not path.startswith("/v1"):
            url = gateway.url + path
            check_headers(session.request(method, url, stream=True, allow_redirects=False, timeout=10))


def test_every_error_has_the_headers(gateway: Gateway, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of routes, of routing, of a middleware, and defects; streams and empty responses."""
    job = queue.enqueue(voice())
    etag = gateway("GET", f"/v1/jobs/{job.id}").headers["ETag"]

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(VoiceQueue, "status", broken)
    answers = [
        gateway("GET", "/missing"),
        gateway("GET", "/v1/jobs/", allow_redirects=False),
        gateway("POST", "/v1/jobs", data=b"x" * 300_000, headers={"Content-Type": "application/json"}),
        gateway("POST", "/v1/jobs", data=b"{", headers={"Content-Type": "application/json"}),
        gateway("POST", "/v1/pause", headers={"Origin": "null"}),
        gateway("GET", f"/v1/jobs/{job.id}", headers={"If-None-Match": etag}),
        gateway("PATCH", "/v1/batches/b", json={"max_credits": 5}),
        gateway("POST", "/v1/batches/b/jobs", data=b"{}\n", headers=NDJSON, stream=True),
        gateway("GET", "/v1/events", stream=True),
        gateway("GET", "/static/page.css"),
        gateway("GET", "/static/missing"),
        gateway("GET", "/static/../app.py"),
        gateway("GET", "/docs/static/swagger-ui.css", headers={"Range": "bytes=9999999-"}),
        gateway("GET", "/v1/status"),
    ]

    statuses = [check_headers(answer).status_code for answer in answers]

    assert statuses == [404, 307, 413, 400, 403, 304, 200, 200, 200, 200, 404, 404, 416, 500]


@pytest.mark.parametrize(
    "broken",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000,
        b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        FORM + b"no size\r\n",
        FORM.replace(b"POST", b"HEAD") + b"no size\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_an_invalid_http_request_gets_the_headers(gateway: Gateway, broken: bytes) -> None:
    """As a problem document, like every other error, and the connection is closed."""
    with connected(gateway.url, broken) as raw:
        answer = HTTPResponse(raw)
        answer.begin()
        parsed = requests.Response()
        parsed.status_code, parsed.raw, parsed.headers = answer.status, answer, CaseInsensitiveDict(answer.getheaders())
        parsed.request = requests.Request("RAW", gateway.url).prepare()
        assert (answer.status, answer.getheader("Content-Type")) == (400, "application/problem+json")
        assert answer.getheader("Connection") == "close"
        check_headers(parsed)


def test_static_files_are_cached_and_revalidated(gateway: Gateway) -> None:
    """A page never runs scripts of another version; responses with jobs are not cached."""
    for path in ("/static/live.js", "/docs/static/swagger-ui.css"):
        first = check_headers(gateway("GET", path, key=None))
        revalidated = check_headers(gateway("GET", path, key=None, headers={"If-None-Match": first.headers["ETag"]}))
        assert (first.headers["Cache-Control"], revalidated.status_code) == ("no-cache", 304)

    assert gateway("GET", "/v1/jobs").headers["Cache-Control"] == "no-store"
