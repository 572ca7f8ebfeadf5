"""Connections and proxies: what was not sent is not charged."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.musicapi import AmbiguousFailure, ConnectionFailed
from tests.contract.conftest import KEY, Connect, upstream_error
from tests.support.scripted import HANG_UP, Request, ScriptedServer, always, answer
from tests.support.tls import Authority
from tests.support.tunnel import TunnelProxy

AUDIO_URL = "https://recordings.example/anna.mp3"
ACCEPTED = answer({"task_id": "t1"})

#: Timeout in seconds for servers that do not respond.
HASTY_S = 0.3


def unavailable(call: Callable[[], object]) -> str:
    """Return the message of a call that certainly cost nothing."""
    error = upstream_error(call)
    assert (type(error), error.may_be_charged) == (ConnectionFailed, False)
    return error.message


def test_a_refused_connection_cost_nothing(connect: Connect) -> None:
    """No server listens on the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    assert unavailable(lambda: connect(f"http://127.0.0.1:{port}").create_voice(AUDIO_URL)) == "no connection"


@contextmanager
def full_backlog() -> Iterator[str]:
    """Yield the URL of a listener whose backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, socket.socket() as first:
        address = listener.getsockname()
        first.connect(address)
        yield f"http://127.0.0.1:{address[1]}"


def test_a_connection_that_is_never_accepted_cost_nothing(connect: Connect) -> None:
    """The connect timeout applies, which is shorter than that of a response."""
    with full_backlog() as url:
        message = unavailable(lambda: connect(url, connect_s=HASTY_S).create_voice(AUDIO_URL))
    assert message == "no connection in time"


def test_an_unsigned_certificate_cost_nothing(connect: Connect) -> None:
    """The request is never sent, and the message does not name the certificate."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(Path(__file__).with_name("self_signed.pem"))
    with ScriptedServer(always(ACCEPTED), tls=tls) as upstream:
        message = unavailable(lambda: connect(upstream.url).create_voice(AUDIO_URL))
    assert message == "upstream's certificate is invalid"
    assert upstream.requests == []


def test_a_tls_handshake_that_fails_cost_nothing(connect: Connect) -> None:
    """The handshake fails or times out before a request can be sent."""
    without_certificate = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with ScriptedServer(always(ACCEPTED), tls=without_certificate) as upstream:
        assert unavailable(lambda: connect(upstream.url).create_voice(AUDIO_URL)) == "no connection"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        message = unavailable(lambda: connect(url, connect_s=HASTY_S).create_voice(AUDIO_URL))
        assert message == "no connection in time"


@pytest.fixture
def through_proxy(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the proxy of clients that are created afterwards."""

    def set_proxy(url: str) -> None:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, url)

    return set_proxy


def test_an_answer_that_a_proxy_lost_may_have_cost_something(
    connect: Connect, through_proxy: Callable[[str], None]
) -> None:
    """The proxy may have forwarded the request before it hung up."""
    with ScriptedServer(always(HANG_UP)) as proxy:
        through_proxy(proxy.url)
        error = upstream_error(lambda: connect("http://musicapi.example").create_voice(AUDIO_URL))
    assert (type(error), error.may_be_charged) == (AmbiguousFailure, True)
    assert [request.path for request in proxy.requests] == ["http://musicapi.example/api/v1/sonic/create-voice"]


def test_a_proxy_that_opens_no_tunnel_cost_nothing(connect: Connect, through_proxy: Callable[[str], None]) -> None:
    """The proxy refuses the connection, or refuses to open a tunnel."""
    with ScriptedServer(always(answer("", status="502 Bad Gateway"))) as proxy:
        through_proxy(proxy.url)
        unavailable(lambda: connect("https://musicapi.example").create_voice(AUDIO_URL))
    assert [request.method for request in proxy.requests] == ["CONNECT"]

    unavailable(lambda: connect("https://musicapi.example").create_voice(AUDIO_URL))


def test_a_tunnel_hides_the_requests_from_the_proxy(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The proxy sees the host and its own login; upstream sees the request, over one connection."""
    authority = Authority(tmp_path)
    certificate = authority.certificate("musicapi.example")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate.certificate, certificate.key)
    with (
        ScriptedServer(always(ACCEPTED), tls=tls) as upstream,
        TunnelProxy(int(upstream.url.rpartition(":")[2])) as proxy,
    ):
        monkeypatch.setenv("https_proxy", proxy.url.replace("://", "://anna:s%40cret@"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
        client = connect("https://musicapi.example")
        assert [client.create_voice(AUDIO_URL) for _ in range(2)] == ["t1", "t1"]

    [head] = proxy.heads
    assert head.startswith("CONNECT musicapi.example:443 HTTP/1.1\r\n")
    assert "proxy-authorization: Basic YW5uYTpzQGNyZXQ=" in head
    assert KEY not in head
    assert [(request.path, request.headers["host"]) for request in upstream.requests] == [
        ("/api/v1/sonic/create-voice", "musicapi.example")
    ] * 2
    assert all("proxy-authorization" not in request.headers for request in upstream.requests)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_only_a_proxy_gets_its_login(connect: Connect, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """The login is that of the proxy URL; the key is sent to the proxy only where it forwards plain HTTP."""

    def refuse(request: Request) -> Iterator[bytes]:
        yield answer({"error": "no"}, status="400 Bad Request")

    with ScriptedServer(refuse) as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url.replace("://", "://anna:s%40cret@"))
        client = connect(f"{scheme}://musicapi.example")
        for _ in range(2):
            with pytest.raises(Exception, match=r"no connection|no"):
                client.get_credits()

    assert {request.headers["proxy-authorization"] for request in proxy.requests} == {"Basic YW5uYTpzQGNyZXQ="}
    assert {request.method for request in proxy.requests} == {"CONNECT" if scheme == "https" else "GET"}
    assert all(("authorization" in request.headers) == (scheme == "http") for request in proxy.requests)


def test_a_proxy_of_another_kind_is_refused_at_the_start(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is raised at the start and not at the first charge."""
    monkeypatch.setenv("https_proxy", "socks5://proxy.example:1080")
    with pytest.raises(ValueError, match="not socks5://"):
        connect("https://musicapi.example")
