"""Requests to URLs of others connect to checked addresses only, and end in time."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripted import HANG_UP, Request, ScriptedServer, always, answer
from voicequeue.net.address_policy import AddressPolicy
from voicequeue.net.http_client import request
from voicequeue.net.http_types import HttpTimeouts, RequestFailed, ResponseTooLarge, Target, UrlNotAllowed

NONE_ALLOWED = AddressPolicy.parse("", setting="THE_SETTING")
HERE = AddressPolicy.parse("127.0.0.1", setting="THE_SETTING")
HASTY = HttpTimeouts(connect_s=0.3, total_s=0.3)
PLAIN = ssl.create_default_context()

CERTIFICATE = Path(__file__).parents[2] / "contract" / "self_signed.pem"


def get(
    url: str, *, allowed: AddressPolicy = HERE, times: HttpTimeouts | None = None, at_most: int = 1_000_000, **rest: Any
) -> tuple[int, bytes]:
    """Return the status and the body."""
    settings = {"headers": {}, "policy": allowed, "timeouts": times or HttpTimeouts(), "tls": PLAIN, **rest}
    with request("GET", Target.parse(url), **settings) as response:
        return response.status, b"".join(response.iter_body(max_bytes=at_most))


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
    """Other characters are percent-encoded; a login becomes a header."""
    assert Target.parse(url) == expected


@pytest.mark.parametrize(
    "url", ["", "hooks.example", "ftp://h/", "http://", "http://[::1", "http://h:99999/", "//h/", "http://a\0b/"]
)
def test_a_url_that_leads_nowhere_is_refused(url: str) -> None:
    """The text does not contain the URL."""
    with pytest.raises(UrlNotAllowed, match=r"^the URL (cannot be read|is neither http:// nor https://)$"):
        Target.parse(url)


# ── where it leads ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LocalHost", "127.1", "0x7f000001", "2130706433", "0"])
def test_the_address_counts_in_every_spelling_of_the_host(host: str) -> None:
    """No connection is opened; the text names the setting that would allow it."""
    with ScriptedServer(always(answer({}))) as receiver:
        port = receiver.url.rpartition(":")[2]
        with pytest.raises(UrlNotAllowed, match="which THE_SETTING does not allow"):
            get(f"http://{host}:{port}/", allowed=NONE_ALLOWED)
    assert receiver.accepted == 0


def test_a_host_that_is_allowed_by_its_name_may_lead_inside() -> None:
    """The same address by another name is refused."""
    allowed = AddressPolicy.parse("localhost", setting="S")
    with ScriptedServer(always(answer("here"))) as receiver:
        port = receiver.url.rpartition(":")[2]
        assert get(f"http://localhost:{port}/", allowed=allowed) == (200, b"here")
        with pytest.raises(UrlNotAllowed):
            get(f"http://127.0.0.1:{port}/", allowed=allowed)


def test_a_redirect_is_a_response_and_is_not_followed() -> None:
    """So no request reaches its destination."""
    with ScriptedServer(always(answer("secret"))) as inside:
        away = answer("", status="302 Found", headers=[f"Location: {inside.url}/"])
        with ScriptedServer(always(away)) as receiver:
            assert get(receiver.url) == (302, b"")
    assert inside.accepted == 0


def test_no_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy could connect to any address."""
    with ScriptedServer(always(answer("direct"))) as receiver, ScriptedServer(always(answer("proxy"))) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert get(receiver.url) == (200, b"direct")
    assert proxy.accepted == 0


def test_the_request_is_sent_as_specified() -> None:
    """This covers method, path, host, login, headers and body."""
    with ScriptedServer(always(answer({}))) as receiver:
        url = receiver.url.replace("http://", "http://me:secret@") + "/a/b?c=d"
        headers = {"X-Any": "thing"}
        with request(
            "POST", Target.parse(url), headers=headers, body=b"{}", policy=HERE, timeouts=HttpTimeouts(), tls=PLAIN
        ):
            pass
    [sent] = receiver.requests
    assert (sent.method, sent.path, sent.body) == ("POST", "/a/b?c=d", b"{}")
    assert sent.headers["host"] == receiver.url.removeprefix("http://")
    assert sent.headers["authorization"] == "Basic bWU6c2VjcmV0"
    assert sent.headers["x-any"] == "thing"


# ── in time ───────────────────────────────────────────────────────────────────────────────────────


def dripping(head: bytes, seconds: float = 5.0) -> Any:
    """Return a script that sends `head`, and then a byte every 50 ms."""

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
def test_a_dripping_response_is_cut_at_the_deadline(head: bytes) -> None:
    """This covers headers and body; a body that was cut does not count as complete."""
    started = time.monotonic()
    with ScriptedServer(dripping(head)) as receiver, pytest.raises(RequestFailed, match=r"^no answer within 0\.3 s$"):
        get(receiver.url, times=HASTY)
    assert time.monotonic() - started < 3


def test_truncated_headers_are_not_a_response() -> None:
    """This holds also for a caller that does not read the body."""
    with ScriptedServer(dripping(b"HTTP/1.1 200 OK\r\nX-Drip: ", 1)) as receiver:
        here = {"headers": {}, "policy": HERE, "timeouts": HASTY, "tls": PLAIN}
        with (
            pytest.raises(RequestFailed, match="no answer within"),
            request("POST", Target.parse(receiver.url), **here) as response,  # type: ignore[arg-type]
        ):
            pytest.fail(f"{response.status} is no answer")


def test_a_silent_receiver_is_given_up_in_time() -> None:
    """It accepts the request and does not respond."""

    def silent(_: Request) -> Iterator[bytes]:
        time.sleep(0.5)
        yield HANG_UP

    with ScriptedServer(silent) as receiver, pytest.raises(RequestFailed, match="no answer within"):
        get(receiver.url, times=HASTY)


def test_a_host_that_accepts_no_connection_is_given_up_in_time() -> None:
    """Its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, socket.socket() as first:
        first.connect(listener.getsockname())
        with pytest.raises(RequestFailed, match="no connection in time"):
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
def test_a_truncated_response_is_a_failure(pieces: list[bytes], why: str) -> None:
    """It may end before its beginning or in the middle."""
    with ScriptedServer(always(*pieces)) as receiver, pytest.raises(RequestFailed, match=f"^no answer: {why}$"):
        get(receiver.url)


def test_an_unknown_host_and_a_refused_connection_have_different_reasons() -> None:
    """Neither text names the host."""
    for host in ("nobody.invalid", "a" * 70):
        with pytest.raises(RequestFailed, match=r"^its host name (cannot be resolved|was not resolved in time)$"):
            get(f"http://{host}/")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(RequestFailed, match=r"^no connection: ConnectionRefusedError$"):
        get(f"http://127.0.0.1:{port}/")


# ── bodies ────────────────────────────────────────────────────────────────────────────────────────


def test_a_body_comes_in_pieces_as_it_is_sent() -> None:
    """It may be chunked, have a length, or end with the connection."""
    payload = bytes(range(256)) * 2_000
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (payload[:70_000], payload[70_000:]))
    for pieces in (
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunked, b"0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(payload), payload],
        [b"HTTP/1.1 200 OK\r\n\r\n", payload, HANG_UP],
    ):
        with ScriptedServer(always(*pieces)) as receiver:
            assert get(receiver.url) == (200, payload)


def test_a_body_that_is_too_large_is_not_read_to_its_end() -> None:
    """The size counts, not the headers."""
    with (
        ScriptedServer(dripping(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5_000)) as receiver,
        pytest.raises(ResponseTooLarge),
    ):
        get(receiver.url, at_most=4_000, times=HttpTimeouts(total_s=5))


def test_an_error_of_the_caller_is_not_translated() -> None:
    """For example, the error of writing the body to a full disk."""

    def to_a_full_disk(url: str) -> None:
        with request("GET", Target.parse(url), headers={}, policy=HERE, timeouts=HttpTimeouts(), tls=PLAIN) as response:
            for _ in response.iter_body(max_bytes=100):
                raise OSError("no space")

    with ScriptedServer(always(answer("here"))) as receiver, pytest.raises(OSError, match="no space"):
        to_a_full_disk(receiver.url)


# ── TLS ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def secure() -> ssl.SSLContext:
    """Return a receiver's TLS context with a self-signed certificate."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)
    return tls


def test_a_certificate_must_be_valid(secure: ssl.SSLContext) -> None:
    """Nothing is sent to a receiver whose certificate is not trusted."""
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
    with ScriptedServer(always(answer("secret")), tls=secure) as receiver:
        with pytest.raises(RequestFailed, match=r"^its certificate is not valid$"):
            get(receiver.url)
        assert receiver.requests == []
        assert get(receiver.url, tls=trusting) == (200, b"secret")


def test_an_endless_handshake_is_cut_in_time(secure: ssl.SSLContext) -> None:
    """The receiver accepts the connection and does not respond."""
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(RequestFailed, match="no answer within"):
        get(f"https://127.0.0.1:{silent.getsockname()[1]}/", times=HASTY)


def test_a_handshake_that_drips_is_cut_in_time() -> None:
    """Each byte of a TLS record arrives within a timeout of the socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drip_record, args=(listener,), daemon=True).start()
        started = time.monotonic()
        with pytest.raises(RequestFailed, match=r"^no answer within 0\.3 s$"):
            get(f"https://127.0.0.1:{listener.getsockname()[1]}/", times=HASTY)
    assert time.monotonic() - started < 2


def drip_record(listener: socket.socket) -> None:
    """Accept one connection, and send a handshake record a byte at a time."""
    connection, _ = listener.accept()
    with connection, suppress(OSError):
        for byte in b"\x16\x03\x03\x10\x00" + bytes(50):
            connection.sendall(bytes((byte,)))
            time.sleep(0.1)


# ── defaults of requests ────────────────────────────────────────────────────────────────────────


def test_a_body_that_is_not_read_by_the_receiver_is_cut_in_time() -> None:
    """The receiver accepts the connection and reads nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = Target.parse(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        with (
            pytest.raises(RequestFailed, match="no answer within"),
            request("POST", target, headers={}, body=bytes(50_000_000), policy=HERE, timeouts=HASTY, tls=PLAIN),
        ):
            pytest.fail("there was a response")


def test_the_body_of_a_redirect_is_not_read_unasked() -> None:
    """It may be endless, and the caller needs only the headers."""
    endless = dripping(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 1000000\r\n\r\n")
    started = time.monotonic()
    with ScriptedServer(endless) as receiver:
        with request(
            "GET", Target.parse(receiver.url), headers={}, policy=HERE, timeouts=HttpTimeouts(), tls=PLAIN
        ) as response:
            assert (response.status, response.headers["location"]) == (302, "/elsewhere")
        assert time.monotonic() - started < 2


def test_no_cookie_and_no_login_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cookie of one exchange is not part of the next, and .netrc is not read."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with ScriptedServer(always(answer({}, headers=["Set-Cookie: session=1; Path=/", "Set-Cookie: \xb2"]))) as receiver:
        get(receiver.url)
        get(receiver.url)
    assert all(not {"cookie", "authorization"} & sent.headers.keys() for sent in receiver.requests)


@pytest.mark.parametrize("path", ["/a/../b", "//a", "/%7e%zz", "/a%2fb?x=%C3%bc&y=a+b"])
def test_the_path_is_sent_unchanged(path: str) -> None:
    """requests would rewrite it, which invalidates signed URLs."""
    with ScriptedServer(always(answer({}))) as receiver:
        get(f"{receiver.url}{path}")
    assert receiver.requests[0].path == path


def test_no_url_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """This includes urllib3's warning of defective headers."""
    defective = b"HTTP/1.1 200 OK\r\nno colon here\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    with (
        caplog.at_level(logging.DEBUG),
        ScriptedServer(always(defective, HANG_UP)) as receiver,
        suppress(RequestFailed),
    ):
        get(f"{receiver.url}/?token=secret")
    assert "secret" not in caplog.text
