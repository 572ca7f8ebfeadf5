"""A gateway without API keys, reached by strangers through a proxy that makes their requests look local."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from urllib.parse import urlsplit

import pytest
import requests

from tests.web.conftest import Build, Gateway
from tests.web.test_web_access import ROUTES
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway

PAGES = ("/", "/job/x", "/batches", "/trends", "/controls", "/live", "/job/x/retry")


class RewritingProxy:
    """Behaves like nginx with a bare `proxy_pass`: Host becomes the gateway's own, and no header names the client."""

    def __init__(self, target: str) -> None:
        self._to = urlsplit(target).netloc
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Stop accepting connections."""
        self._listening.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listening.accept()
                threading.Thread(target=self._forward, args=(caller,), daemon=True).start()

    def _forward(self, caller: socket.socket) -> None:
        host, _, port = self._to.rpartition(":")
        with caller, socket.create_connection((host, int(port)), timeout=10) as gateway, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head and (piece := caller.recv(65_536)):
                head += piece
            head = re.sub(rb"(?im)^(host: ).*(?=\r$)", rb"\g<1>" + self._to.encode(), head)
            gateway.sendall(re.sub(rb"(?im)^connection: .*(?=\r$)", b"Connection: close", head))
            threading.Thread(target=_copy, args=(caller, gateway), daemon=True).start()
            _copy(gateway, caller)


def _copy(of: socket.socket, target: socket.socket) -> None:
    """Copy until the connection ends."""
    with suppress(OSError):
        while piece := of.recv(65_536):
            target.sendall(piece)


@pytest.fixture
def stranger(keyless: Gateway) -> Iterator[str]:
    """Yield the URL under which a stranger reaches the gateway: the proxy's."""
    with closing(RewritingProxy(keyless.url)) as proxy:
        yield proxy.url


def test_a_proxy_that_rewrites_host_opens_no_route_to_strangers(stranger: str) -> None:
    """Each is rejected before anything is read, enqueued, paused or returned."""
    voices = {"Host": "voices.example"}
    for method, path, _ in ROUTES:
        answer = requests.request(method, stranger + path, headers=voices, json={}, timeout=10)
        assert answer.status_code == 401, (method, path, answer.text)


def test_a_stranger_can_neither_enqueue_nor_pause(stranger: str, store: JobStore) -> None:
    """Once this was accepted with 202."""
    job = {"audio_url": "https://example.com/ana.wav"}

    assert requests.post(f"{stranger}/v1/jobs", json=job, timeout=10).status_code == 401
    assert requests.post(f"{stranger}/v1/pause", timeout=10).status_code == 401
    assert requests.get(f"{stranger}/v1/status", timeout=10).status_code == 401

    assert list(store.lanes()) == []
    assert store.flow_control.gate(store.clock()).is_open


def test_a_stranger_can_neither_see_nor_use_the_page(stranger: str, keyless: Gateway) -> None:
    """Each page redirects to the login, which accepts only the token; forms without a login are rejected."""
    for path in PAGES:
        answer = requests.get(stranger + path, timeout=10, allow_redirects=False)
        assert (answer.status_code, answer.headers["Location"].partition("?")[0]) == (303, "/login"), path
    for path in ("/do/pause", "/do/resume", "/do/limits", "/job/x/cancel"):
        answer = requests.post(stranger + path, data={"token": ""}, timeout=10, allow_redirects=False)
        assert (answer.status_code, answer.headers["Location"].partition("?")[0]) == (303, "/login"), path
    guess = requests.post(f"{stranger}/login", data={"key": "vq_guess"}, timeout=10, allow_redirects=False)
    assert (guess.status_code, "Set-Cookie" in guess.headers) == (401, False)
    assert requests.get(f"{stranger}/?token=guess", timeout=10, allow_redirects=False).cookies.keys() == []


def test_a_gateway_started_without_keys_and_token_answers_no_stranger(build_gateway: Build) -> None:
    """The error says what to do."""
    with closing(RewritingProxy(build_gateway(api_keys="").url)) as proxy:
        for method, path in (("POST", "/v1/jobs"), ("POST", "/v1/pause"), ("GET", "/v1/status"), ("GET", "/metrics")):
            answer = requests.request(method, proxy.url + path, timeout=10)
            assert answer.status_code == 403
            assert "make up" in answer.text
            assert "voicequeue keys new" in answer.text
        assert requests.get(proxy.url, timeout=10).status_code == 403


def test_a_proxied_request_is_rejected_even_with_the_token(keyless: Gateway) -> None:
    """It does not come from this machine: it needs a key."""
    for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "Via", "X-Forwarded-Host", "X-Forwarded-Proto"):
        answer = requests.get(keyless.link(), headers={name: "203.0.113.9"}, timeout=10, allow_redirects=False)
        assert (answer.status_code, "Set-Cookie" in answer.headers) == (403, False), name
        assert "another machine" not in answer.text, "the proxy's client is unknown"
