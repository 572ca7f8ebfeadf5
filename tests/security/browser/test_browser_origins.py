"""Pages of other sites, and of other ports of this machine, change nothing here and read nothing."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from redis import Redis

from tests.security.surface import UNASKED, changing, operations
from tests.web.conftest import Gateway, app_of, problem
from tests.web.seen import Person

FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_whatever_changes_something_refuses_pages_of_other_origins(
    gateway: Gateway, redis: Redis, prefix: str, headers: Mapping[str, str]
) -> None:
    """Before anything else of the request is looked at, and nothing is written; also with a key and a login."""
    cookies = Person(gateway, "all").session.cookies.get_dict()
    before = sorted(redis.scan_iter(f"{prefix}:*"))

    for method, path in changing(app_of(gateway)):
        answer = gateway(method, path, headers=headers, cookies=cookies, data=b"{}")
        problem(answer, 403, "foreign_origin")
        assert "pages of other origins" in answer.json()["detail"]

    assert sorted(redis.scan_iter(f"{prefix}:*")) == before


def test_a_page_of_the_gateway_may_change_what_its_reader_may(gateway: Gateway) -> None:
    """It says whose page it is, as every browser does."""
    own = {"Origin": gateway.url, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}

    for method, path in changing(app_of(gateway)):
        assert "foreign_origin" not in gateway(method, path, headers=own).text, path

    assert gateway("POST", "/v1/pause", headers=own).status_code == 200


def test_behind_a_proxy_with_tls_the_name_counts_and_not_the_scheme(gateway: Gateway) -> None:
    """The gateway sees http where the browser sees https; a proxy that renames Host is told what to do."""
    page = {"Origin": "https://voices.example", "Sec-Fetch-Site": "same-origin"}

    assert gateway("POST", "/v1/pause", headers={**page, "Host": "voices.example"}).status_code == 200
    renamed = gateway("POST", "/v1/pause", headers=page)
    problem(renamed, 403, "foreign_origin")
    assert "must pass on Host" in renamed.json()["detail"]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_is_read_refuses_to_be_loaded_by_pages_of_other_origins(gateway: Gateway, site: str) -> None:
    """As a script, a picture, a frame or by fetch; a link to it may lead there."""
    for method, path in operations(app_of(gateway)):
        for mode, to in (("cors", "empty"), ("no-cors", "script"), ("no-cors", "image"), ("navigate", "iframe")):
            headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": to}
            assert gateway(method, path, headers=headers).status_code == 403, (method, path)

    link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    for path in ("/", "/docs", "/v1/status", "/healthz"):
        assert gateway("GET", path, headers=link).status_code == 200, path


def test_no_page_may_ask_first_whether_it_may(gateway: Gateway) -> None:
    """A browser that asks is refused, so it sends no key, no JSON and no PATCH for a page of another origin."""
    for _, path in operations(app_of(gateway)):
        headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PATCH"}
        answer = gateway("OPTIONS", path, key=None, headers=headers)
        assert not answer.ok
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_no_body_is_taken_that_a_page_can_send_unasked(gateway: Gateway) -> None:
    """Every body of the API says its type, and it is none that browsers send to other sites without asking first."""
    bodies = [
        (method.upper(), path.format(name="x"), {*operation["requestBody"]["content"]})
        for path, methods in app_of(gateway).openapi()["paths"].items()
        for method, operation in methods.items()
        if "requestBody" in operation
    ]
    assert len(bodies) >= 5
    for method, path, types in bodies:
        assert types.isdisjoint({str(each).partition(";")[0] for each in UNASKED})
        for each in UNASKED:
            headers = {} if each is None else {"Content-Type": each}
            answer = gateway(method, path, data=b'{"audio_url": "https://evil.example/a.wav"}\n', headers=headers)
            problem(answer, 415, "unsupported_media_type")
            assert all(kind in answer.json()["detail"] for kind in types), answer.text


def test_a_form_says_that_it_is_one(gateway: Gateway) -> None:
    """Each POST of a page takes the type that its own forms have, and no other."""
    session = Person(gateway, "all").session
    forms = [path for _, path in changing(app_of(gateway)) if not path.startswith(("/v1", "/hooks"))]
    assert {"/login", "/logout", "/do/pause"} <= {*forms}
    for path in forms:
        for each in (None, "text/plain", "multipart/form-data; boundary=b", "application/json"):
            headers = {} if each is None else {"Content-Type": each}
            answer = session.post(gateway.url + path, data=b"key=x", headers=headers, timeout=10)
            assert answer.status_code == 415, (path, each)
            assert "application/x-www-form-urlencoded" in answer.text
