"""Detection of requests from pages of other origins."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from voicequeue.auth.web_origins import host_name, is_loopback, is_origin_of, origin_refusal

HERE = "127.0.0.1:8000"
LINK = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:8000", HERE),
        ("https://voices.example", "voices.example"),  # behind a proxy with TLS
        ("http://voices.example", "voices.example:80"),
        ("https://voices.example", "voices.example:443"),
        ("https://voices.example:8443", "Voices.Example:8443"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_a_page_of_this_server_is_recognized_by_its_origin(origin: str, host: str) -> None:
    """With any scheme, with or without the scheme's default port."""
    assert is_origin_of(origin, host)
    assert origin_refusal("POST", Headers({"Host": host, "Origin": origin, "Sec-Fetch-Site": "same-origin"})) is None


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("null", HERE),
        ("", HERE),
        ("http://127.0.0.1:8001", HERE),
        ("http://localhost:8000", HERE),
        ("http://127.0.0.1", HERE),
        ("http://127.0.0.1:8000", ""),
        ("http://127.0.0.1:8000.evil.example", HERE),
        ("http://127.0.0.1:8000@evil.example", HERE),
        ("http://evil.example@127.0.0.1:8000", HERE),
        ("http://evil.example", "evil.example@127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", HERE),
        ("127.0.0.1:8000", HERE),
        ("file://", HERE),
        ("chrome-extension://127.0.0.1:8000", HERE),
        ("https://voices.example", "voices.example:80"),
        ("http://a:99999999999999999999", "a:99999999999999999999"),
        ("http://[::", "[::"),
        ("http://127.0.0.1:8000, http://127.0.0.1:8000", HERE),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "PROPFIND"])
def test_a_page_of_another_origin_is_rejected_for_every_method(method: str, origin: str, host: str) -> None:
    """A hidden or unreadable origin also counts as another; the reason states both compared values."""
    assert not is_origin_of(origin, host)

    reason = origin_refusal(method, Headers({"Host": host, "Origin": origin, **LINK}))

    assert reason is not None
    assert repr(origin) in reason
    assert repr(host) in reason


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "Same-Origin", "same-origin, none"])
@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", LINK),
        ("DELETE", {}),
        ("OPTIONS", LINK),
        ("GET", {}),
        ("GET", {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}),
        ("GET", {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}),
        ("GET", {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "document"}),
        ("GET", {**LINK, "sec-fetch-dest": "iframe"}),
        ("GET", {**LINK, "sec-fetch-dest": "object"}),
    ],
)
def test_another_site_can_neither_load_nor_change_anything(site: str, method: str, headers: dict[str, str]) -> None:
    """Also with a hidden origin; another port of this machine is the same site, but another origin."""
    assert origin_refusal(method, Headers({"Host": HERE, "Sec-Fetch-Site": site, **headers})) is not None


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
def test_a_link_on_another_site_works(site: str) -> None:
    """Also a link in an email."""
    assert origin_refusal("GET", Headers({"Host": HERE, "Sec-Fetch-Site": site, **LINK})) is None


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_requests_of_programs_are_accepted(method: str) -> None:
    """They send no origin; Node's fetch sends only its mode."""
    assert origin_refusal(method, Headers({"Host": HERE})) is None
    assert origin_refusal(method, Headers({"Host": HERE, "Sec-Fetch-Mode": "cors"})) is None
    assert origin_refusal(method, Headers({"Host": HERE, "Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "cors"})) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8:5555", "[::1]:5555", "[::ffff:127.0.0.1]", "LocalHost:1"])
def test_names_of_this_machine_are_recognized(host: str) -> None:
    """With and without a port."""
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        *("", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.7", "[::2]:80", "[::"),
        *("me@127.0.0.1", "127.0.0.1:", "127.0.0.1/x", "127.0.0.1 ", "2130706433", "0x7f.1", "0.0.0.0"),
        "127.0.0.1,evil.example",
    ],
)
def test_no_other_name_is_this_machine(host: str) -> None:
    """In any unusual spelling."""
    assert not is_loopback(host)


def test_a_host_consists_of_a_name_and_an_optional_port() -> None:
    """The name is converted to lower case."""
    assert [host_name(host) for host in ("A.b:80", "[2001:DB8::1]", "a b", "a:x")] == ["a.b", "2001:db8::1", None, None]
