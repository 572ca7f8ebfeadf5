"""Requests to addresses that somebody else has named: checked where they really lead to, and over in time."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripted import HANG_UP, Request, Scripted, answer, one_answer
from voicequeue.net.address_policy import Allowed
from voicequeue.net.http_client import Refused, Target, Times, TooLarge, Unanswered, request

NOBODY = Allowed.of("", setting="THE_SETTING")
HERE = Allowed.of("127.0.0.1", setting="THE_SETTING")
HASTY = Times(connect_s=0.3, whole_s=0.3)
PLAIN = ssl.create_default_context()

CERTIFICATE = Path(__file__).parents[2] / "contract" / "self_signed.pem"


def get(
    url: str, *, allowed: Allowed = HERE, times: Times | None = None, at_most: int = 1_000_000, **rest: Any
) -> tuple[int, bytes]:
    """Status and body."""
    settings = {"headers": {}, "allowed": allowed, "times": times or Times(), "tls": PLAIN, **rest}
    with request("GET", Target.of(url), **settings) as response:
        return response.status, b"".join(response.pieces(at_most=at_most))


# ── URLs ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://hooks.example", Target(False, "hooks.example", 80, "/")),
        ("https://Hooks.Example:8443/a?b=c#d", Target(True, "hooks.example", 8443, "/a?b=c")),
        ("https://[2001:db8::1]/x", Target(True, "2001:db8::1", 443, "/x")),
        ("http://h/grüße?q=é&r=%20", Target(False, "h", 80, "/gr%C3%BC%C3%9Fe?q=%C3%A9&r=%20")),
        ("http://me:s%40cret@h/", Target(False, "h", 80, "/", "Basic bWU6c0BjcmV0")),
        ("http://h?x", Target(False, "h", 80, "/?x")),
    ],
)
def test_a_url_leads_to_a_host_and_a_path(url: str, expected: Target) -> None:
    """What may not stand in a request line is quoted; a login becomes a header."""
    assert Target.of(url) == expected


@pytest.mark.parametrize(
    "url", ["", "hooks.example", "ftp://h/", "http://", "http://[::1", "http://h:99999/", "//h/", "http://a\0b/"]
)
def test_a_url_that_leads_nowhere_is_refused(url: str) -> None:
    """The text does not repeat it."""
    with pytest.raises(Refused, match=r"^the URL (cannot be read|is neither http:// nor https://)$"):
        Target.of(url)


# ── where it leads ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LocalHost", "127.1", "0x7f000001", "2130706433", "0"])
def test_however_a_host_is_spelled_the_address_that_it_leads_to_counts(host: str) -> None:
    """Nobody is connected to; the text names the setting that would allow it."""
    with Scripted(one_answer(answer({}))) as receiver:
        port = receiver.url.rpartition(":")[2]
        with pytest.raises(Refused, match="which THE_SETTING does not name"):
            get(f"http://{host}:{port}/", allowed=NOBODY)
    assert receiver.accepted == 0


def test_a_host_that_is_allowed_by_its_name_may_lead_inside() -> None:
    """The same address by another name may not."""
    allowed = Allowed.of("localhost", setting="S")
    with Scripted(one_answer(answer("here"))) as receiver:
        port = receiver.url.rpartition(":")[2]
        assert get(f"http://localhost:{port}/", allowed=allowed) == (200, b"here")
        with pytest.raises(Refused):
            get(f"http://127.0.0.1:{port}/", allowed=allowed)


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    """So nothing gets to where it would have led."""
    with Scripted(one_answer(answer("secret"))) as inside:
        away = answer("", status="302 Found", headers=[f"Location: {inside.url}/"])
        with Scripted(one_answer(away)) as receiver:
            assert get(receiver.url) == (302, b"")
    assert inside.accepted == 0


def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would connect to wherever it likes."""
    with Scripted(one_answer(answer("direct"))) as receiver, Scripted(one_answer(answer("proxy"))) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert get(receiver.url) == (200, b"direct")
    assert proxy.accepted == 0


def test_the_request_says_what_it_was_told_to_say() -> None:
    """Method, path, host, login, headers, body."""
    with Scripted(one_answer(answer({}))) as receiver:
        url = receiver.url.replace("http://", "http://me:secret@") + "/a/b?c=d"
        headers = {"X-Any": "thing"}
        with request("POST", Target.of(url), headers=headers, body=b"{}", allowed=HERE, times=Times(), tls=PLAIN):
            pass
    [came] = receiver.requests
    assert (came.method, came.path, came.body) == ("POST", "/a/b?c=d", b"{}")
    assert came.headers["host"] == receiver.url.removeprefix("http://")
    assert came.headers["authorization"] == "Basic bWU6c2VjcmV0"
    assert came.headers["x-any"] == "thing"


# ── in time ───────────────────────────────────────────────────────────────────────────────────────


def dripping(head: bytes, seconds: float = 5.0) -> Any:
    """A receiver that begins so, and then sends a byte now and then."""

    def script(_: Request) -> Iterator[bytes]:
        yield head
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.05)
            yield b"x"

    return script


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nX-Drip: ", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"],
)  # fmt: skip
def test_an_answer_that_drips_is_cut_when_its_time_is_over(head: bytes) -> None:
    """In its headers or in its body: a body that was cut is not taken for one that has ended."""
    began = time.monotonic()
    with Scripted(dripping(head)) as receiver, pytest.raises(Unanswered, match=r"^no answer within 0\.3 s$"):
        get(receiver.url, times=HASTY)
    assert time.monotonic() - began < 3


def test_headers_that_drip_are_not_taken_for_an_answer() -> None:
    """Not even where nobody wants the body: what was cut is none."""
    with Scripted(dripping(b"HTTP/1.1 200 OK\r\nX-Drip: ", 1)) as receiver:
        here = {"headers": {}, "allowed": HERE, "times": HASTY, "tls": PLAIN}
        with (
            pytest.raises(Unanswered, match="no answer within"),
            request("POST", Target.of(receiver.url), **here) as response,  # type: ignore[arg-type]
        ):
            pytest.fail(f"{response.status} is no answer")


def test_a_receiver_that_says_nothing_is_left_in_time() -> None:
    """It takes the request and is silent."""

    def silent(_: Request) -> Iterator[bytes]:
        time.sleep(0.5)
        yield HANG_UP

    with Scripted(silent) as receiver, pytest.raises(Unanswered, match="no answer within"):
        get(receiver.url, times=HASTY)


def test_a_host_that_lets_nobody_in_is_left_in_time() -> None:
    """Its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, socket.socket() as first:
        first.connect(listener.getsockname())
        with pytest.raises(Unanswered, match="no connection in time"):
            get(f"http://127.0.0.1:{listener.getsockname()[1]}/", times=HASTY)


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([HANG_UP], "RemoteDisconnected"),
        ([b"garbage\r\n\r\n", HANG_UP], "BadStatusLine"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", HANG_UP], "IncompleteRead"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nshort", HANG_UP], "IncompleteRead"),
    ],
)
def test_an_answer_that_breaks_off_is_none(pieces: list[bytes], why: str) -> None:
    """Whether it broke off before it began or in the middle."""
    with Scripted(one_answer(*pieces)) as receiver, pytest.raises(Unanswered, match=f"^no answer: {why}$"):
        get(receiver.url)


def test_a_host_that_nobody_knows_and_one_that_refuses_are_told_apart() -> None:
    """Neither text names the host."""
    for host in ("nobody.invalid", "a" * 70):
        with pytest.raises(Unanswered, match=r"^its host is not (known|found in time)$"):
            get(f"http://{host}/")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Unanswered, match=r"^no connection: ConnectionRefusedError$"):
        get(f"http://127.0.0.1:{port}/")


# ── bodies ────────────────────────────────────────────────────────────────────────────────────────


def test_a_body_comes_in_pieces_as_it_is_sent() -> None:
    """Chunked, of a length, or until the connection is closed."""
    payload = bytes(range(256)) * 2_000
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (payload[:70_000], payload[70_000:]))
    for pieces in (
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunked, b"0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(payload), payload],
        [b"HTTP/1.1 200 OK\r\n\r\n", payload, HANG_UP],
    ):
        with Scripted(one_answer(*pieces)) as receiver:
            assert get(receiver.url) == (200, payload)


def test_a_body_that_is_larger_than_it_may_be_is_not_read_to_its_end() -> None:
    """Whatever its headers said."""
    with Scripted(dripping(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5_000)) as receiver, pytest.raises(TooLarge):
        get(receiver.url, at_most=4_000, times=Times(whole_s=5))


def test_what_goes_wrong_in_the_callers_hands_is_the_callers() -> None:
    """An error while the body is written to a full disk is none of the receiver's."""

    def to_a_full_disk(url: str) -> None:
        with request("GET", Target.of(url), headers={}, allowed=HERE, times=Times(), tls=PLAIN) as response:
            for _ in response.pieces(at_most=100):
                raise OSError("no space")

    with Scripted(one_answer(answer("here"))) as receiver, pytest.raises(OSError, match="no space"):
        to_a_full_disk(receiver.url)


# ── TLS ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def secure() -> ssl.SSLContext:
    """A receiver's side of TLS, with a certificate that it signed itself."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)
    return tls


def test_a_certificate_must_hold(secure: ssl.SSLContext) -> None:
    """Nothing is sent to whom nobody vouches for; to whom somebody does, it is."""
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
    with Scripted(one_answer(answer("secret")), tls=secure) as receiver:
        with pytest.raises(Unanswered, match=r"^its certificate does not hold$"):
            get(receiver.url)
        assert receiver.requests == []
        assert get(receiver.url, tls=trusting) == (200, b"secret")


def test_a_handshake_that_never_ends_is_cut_in_time(secure: ssl.SSLContext) -> None:
    """The receiver takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Unanswered, match="no answer within"):
        get(f"https://127.0.0.1:{silent.getsockname()[1]}/", times=HASTY)
