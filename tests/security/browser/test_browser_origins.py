"""Pages of other sites, and of other ports of this machine, can change and read nothing."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from redis import Redis

from tests.security.surface import WITHOUT_PREFLIGHT, changing, operations
from tests.web.conftest import Gateway, app_of, problem
from tests.web.seen import PageUser

pytestmark = pytest.mark.shared_gateway

FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_every_changing_route_rejects_pages_of_other_origins(
    gateway: Gateway, redis: Redis, prefix: str, headers: Mapping[str, str]
) -> None:
    """Before any other check, and nothing is written; also with a key and a login."""
    cookies = PageUser(gateway, "all").session.cookies.get_dict()
    before = sorted(redis.scan_iter(f"{prefix}:*"))

    for method, path in changing(app_of(gateway)):
        answer = gateway(method, path, headers=headers, cookies=cookies, data=b"{}")
        problem(answer, 403, "foreign_origin")
        assert "pages of other origins" in answer.json()["detail"]

    assert sorted(redis.scan_iter(f"{prefix}:*")) == before


def test_a_page_of_the_gateway_may_change_what_its_user_may(gateway: Gateway) -> None:
    """It sends its origin, as every browser does."""
    own = {"Origin": gateway.url, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}

    for method, path in changing(app_of(gateway)):
        assert "foreign_origin" not in gateway(method, path, headers=own).text, path

    assert gateway("POST", "/v1/pause", headers=own).status_code == 200


def test_behind_a_tls_proxy_the_host_decides_and_not_the_scheme(gateway: Gateway) -> None:
    """The gateway sees http where the browser sees https; a proxy that changes Host gets an error with the fix."""
    page = {"Origin": "https://voices.example", "Sec-Fetch-Site": "same-origin"}

    assert gateway("POST", "/v1/pause", headers={**page, "Host": "voices.example"}).status_code == 200
    renamed = gateway("POST", "/v1/pause", headers=page)
    problem(renamed, 403, "foreign_origin")
    assert "must forward Host" in renamed.json()["detail"]


@pytest.mark.endurance
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_no_route_can_be_loaded_by_pages_of_other_origins(gateway: Gateway, site: str) -> None:
    """Not as a script, picture or frame, nor by fetch; links to it work."""
    for method, path in operations(app_of(gateway)):
        for mode, dest in (
            ("cors", "empty"),
            ("no-cors", "script"),
            ("no-cors", "image"),
            ("navigate", "iframe"),
        ):
            headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
            assert gateway(method, path, headers=headers).status_code == 403, (method, path)

    link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    for path in ("/", "/docs", "/v1/status", "/healthz"):
        assert gateway("GET", path, headers=link).status_code == 200, path


def test_every_preflight_is_rejected(gateway: Gateway) -> None:
    """So a browser sends no key, no JSON and no PATCH for a page of another origin."""
    for _, path in operations(app_of(gateway)):
        headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PATCH"}
        answer = gateway("OPTIONS", path, key=None, headers=headers)
        assert not answer.ok
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_no_body_is_accepted_that_a_page_can_send_without_a_preflight(gateway: Gateway) -> None:
    """Every body of the API requires a content type that browsers send to other sites only after a preflight."""
    bodies = [
        (method.upper(), path.format(name="x", job_id="x", owner="account"), {*operation["requestBody"]["content"]})
        for path, methods in app_of(gateway).openapi()["paths"].items()
        for method, operation in methods.items()
        if "requestBody" in operation
    ]
    assert len(bodies) >= 5
    for method, path, types in bodies:
        assert types.isdisjoint({str(content_type).partition(";")[0] for content_type in WITHOUT_PREFLIGHT})
        for content_type in WITHOUT_PREFLIGHT:
            headers = {} if content_type is None else {"Content-Type": content_type}
            answer = gateway(method, path, data=b'{"audio_url": "https://evil.example/a.wav"}\n', headers=headers)
            problem(answer, 415, "unsupported_media_type")
            assert all(kind in answer.json()["detail"] for kind in types), answer.text


def test_a_form_requires_the_content_type_of_forms(gateway: Gateway) -> None:
    """Each POST of a page accepts the content type of its own forms, and no other."""
    session = PageUser(gateway, "all").session
    forms = [path for _, path in changing(app_of(gateway)) if not path.startswith(("/v1", "/hooks"))]
    assert {"/login", "/logout", "/do/pause"} <= {*forms}
    for path in forms:
        for content_type in (None, "text/plain", "multipart/form-data; boundary=b", "application/json"):
            headers = {} if content_type is None else {"Content-Type": content_type}
            answer = session.post(gateway.url + path, data=b"key=x", headers=headers, timeout=10)
            assert answer.status_code == 415, (path, content_type)
            assert "application/x-www-form-urlencoded" in answer.text
