"""Every answer says what a browser may do with it: whatever the route, and whatever went wrong."""

from __future__ import annotations

from http.client import HTTPResponse

import pytest
import requests
from requests.structures import CaseInsensitiveDict

from tests.security.network.test_slow_clients import connected
from tests.security.surface import operations
from tests.support.jobs import voice
from tests.web.conftest import Gateway, app_of
from tests.web.seen import Person
from voicequeue import VoiceQueue

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


def guarded(answer: requests.Response) -> requests.Response:
    """The answer, which no site may show, and of which nothing runs that is not a file of this server."""
    answer.close()
    about = f"{answer.request.method} {answer.request.url} {answer.status_code}"
    assert {name: answer.headers.get(name) for name in EVERYWHERE} == EVERYWHERE, about
    policy = dict(each.strip().split(" ", 1) for each in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] in ("'none'", "'self'"), about
    assert policy.get("script-src", "'self'") == "'self'", about
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'", about
    assert policy["form-action"] in ("'none'", "'self'"), about
    assert "unsafe" not in str(policy), about
    assert answer.headers["Cache-Control"] in ("no-store", "private, no-cache", "no-cache"), about
    assert not [name for name in answer.headers if name.startswith("Access-Control-")], about
    return answer


@pytest.mark.parametrize("key", [None, "all"])
def test_every_route_answers_with_the_headers(gateway: Gateway, key: str | None) -> None:
    """With a key and without one, as it is and with a method that it does not know."""
    seen = set()
    for method, path in operations(app_of(gateway)):
        for used in (method, "OPTIONS", "BREW"):
            answer = guarded(gateway(used, path, key=key, stream=True, allow_redirects=False))
            seen.add(answer.status_code)

    assert {401 if key is None else 415, 200, 405} <= seen


def test_every_page_answers_with_the_headers(gateway: Gateway) -> None:
    """To somebody who is logged in, too."""
    session = Person(gateway, "all").session
    for method, path in operations(app_of(gateway)):
        if not path.startswith("/v1"):
            url = gateway.url + path
            guarded(session.request(method, url, stream=True, allow_redirects=False, timeout=10))


def test_whatever_goes_wrong_the_headers_are_there(
    gateway: Gateway, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of routes, of routing, of a middleware, and defects; streams and empty answers."""
    job = queue.enqueue(voice())
    etag = gateway("GET", f"/v1/jobs/{job.id}").headers["ETag"]

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(VoiceQueue, "status", broken)
    answers = [
        gateway("GET", "/nowhere"),
        gateway("GET", "/v1/jobs/", allow_redirects=False),
        gateway("POST", "/v1/jobs", data=b"x" * 300_000, headers={"Content-Type": "application/json"}),
        gateway("POST", "/v1/jobs", data=b"{", headers={"Content-Type": "application/json"}),
        gateway("POST", "/v1/pause", headers={"Origin": "null"}),
        gateway("GET", f"/v1/jobs/{job.id}", headers={"If-None-Match": etag}),
        gateway("PATCH", "/v1/batches/b", json={"max_credits": 5}),
        gateway("POST", "/v1/batches/b/jobs", data=b"{}\n", headers=NDJSON, stream=True),
        gateway("GET", "/v1/events", stream=True),
        gateway("GET", "/static/page.css"),
        gateway("GET", "/static/nowhere"),
        gateway("GET", "/static/../app.py"),
        gateway("GET", "/docs/static/swagger-ui.css", headers={"Range": "bytes=9999999-"}),
        gateway("GET", "/v1/status"),
    ]

    statuses = [guarded(answer).status_code for answer in answers]

    assert statuses == [404, 307, 413, 400, 403, 304, 204, 200, 200, 200, 404, 404, 416, 500]


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
def test_what_is_no_http_is_answered_with_the_headers(gateway: Gateway, broken: bytes) -> None:
    """As a problem, like every other refusal, and the connection is closed."""
    with connected(gateway.url, broken) as raw:
        answer = HTTPResponse(raw)
        answer.begin()
        seen = requests.Response()
        seen.status_code, seen.raw, seen.headers = answer.status, answer, CaseInsensitiveDict(answer.getheaders())
        seen.request = requests.Request("RAW", gateway.url).prepare()
        assert (answer.status, answer.getheader("Content-Type")) == (400, "application/problem+json")
        assert answer.getheader("Connection") == "close"
        guarded(seen)


def test_files_of_pages_are_kept_and_asked_for_again(gateway: Gateway) -> None:
    """A page never runs with scripts of another version; what holds jobs is not kept at all."""
    for path in ("/static/live.js", "/docs/static/swagger-ui.css"):
        first = guarded(gateway("GET", path, key=None))
        again = guarded(gateway("GET", path, key=None, headers={"If-None-Match": first.headers["ETag"]}))
        assert (first.headers["Cache-Control"], again.status_code) == ("no-cache", 304)

    assert gateway("GET", "/v1/jobs").headers["Cache-Control"] == "no-store"
