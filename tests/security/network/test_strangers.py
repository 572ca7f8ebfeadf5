"""A gateway without API keys, called by strangers through a proxy that makes their requests look local."""

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
from voicequeue.storage.job_store import Store

PAGES = ("/", "/job/x", "/batches", "/trend", "/controls", "/live", "/job/x/retry")


class RewritingProxy:
    """As nginx is with a bare `proxy_pass`: Host becomes the gateway's own name, and no header says who asks."""

    def __init__(self, to: str) -> None:
        self._to = urlsplit(to).netloc
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listening.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listening.accept()
                threading.Thread(target=self._pass_on, args=(caller,), daemon=True).start()

    def _pass_on(self, caller: socket.socket) -> None:
        host, _, port = self._to.rpartition(":")
        with caller, socket.create_connection((host, int(port)), timeout=10) as gateway, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head and (piece := caller.recv(65_536)):
                head += piece
            head = re.sub(rb"(?im)^(host: ).*(?=\r$)", rb"\g<1>" + self._to.encode(), head)
            gateway.sendall(re.sub(rb"(?im)^connection: .*(?=\r$)", b"Connection: close", head))
            threading.Thread(target=_copy, args=(caller, gateway), daemon=True).start()
            _copy(gateway, caller)


def _copy(of: socket.socket, to: socket.socket) -> None:
    """Until it ends."""
    with suppress(OSError):
        while piece := of.recv(65_536):
            to.sendall(piece)


@pytest.fixture
def stranger(keyless: Gateway) -> Iterator[str]:
    """Where a stranger reaches the gateway: through that proxy."""
    with closing(RewritingProxy(keyless.url)) as proxy:
        yield proxy.url


def test_a_proxy_that_rewrites_host_opens_no_route_to_strangers(stranger: str) -> None:
    """Without keys: each is refused before anything is read, put in, paused or told."""
    voices = {"Host": "voices.example"}
    for method, path, _ in ROUTES:
        answer = requests.request(method, stranger + path, headers=voices, json={}, timeout=10)
        assert answer.status_code == 401, (method, path, answer.text)


def test_a_stranger_puts_in_no_job_and_pauses_nothing(stranger: str, store: Store) -> None:
    """What was accepted with 202 once."""
    job = {"audio_url": "https://example.com/ana.wav"}

    assert requests.post(f"{stranger}/v1/jobs", json=job, timeout=10).status_code == 401
    assert requests.post(f"{stranger}/v1/pause", timeout=10).status_code == 401
    assert requests.get(f"{stranger}/v1/status", timeout=10).status_code == 401

    assert list(store.lines()) == []
    assert store.controls.gate(store.clock()).open


def test_a_stranger_sees_and_does_nothing_on_the_page(stranger: str, keyless: Gateway) -> None:
    """Each page leads to the login, which takes the token alone; what is sent without a login is refused."""
    for path in PAGES:
        answer = requests.get(stranger + path, timeout=10, allow_redirects=False)
        assert (answer.status_code, answer.headers["Location"].partition("?")[0]) == (303, "/login"), path
    for path in ("/do/pause", "/do/resume", "/do/limits", "/job/x/cancel"):
        answer = requests.post(stranger + path, data={"token": ""}, timeout=10, allow_redirects=False)
        assert (answer.status_code, answer.headers["Location"].partition("?")[0]) == (303, "/login"), path
    guess = requests.post(f"{stranger}/login", data={"key": "vq_guess"}, timeout=10, allow_redirects=False)
    assert (guess.status_code, "Set-Cookie" in guess.headers) == (401, False)
    assert requests.get(f"{stranger}/?token=guess", timeout=10, allow_redirects=False).cookies.keys() == []


def test_a_gateway_started_by_hand_without_keys_answers_no_stranger(build_gateway: Build) -> None:
    """It has no token either, and says what to do."""
    with closing(RewritingProxy(build_gateway(api_keys="").url)) as proxy:
        for method, path in (("POST", "/v1/jobs"), ("POST", "/v1/pause"), ("GET", "/v1/status"), ("GET", "/metrics")):
            answer = requests.request(method, proxy.url + path, timeout=10)
            assert answer.status_code == 403
            assert "make up" in answer.text
            assert "voicequeue keys new" in answer.text
        assert requests.get(proxy.url, timeout=10).status_code == 403


def test_an_honest_proxy_is_refused_even_with_the_token(keyless: Gateway) -> None:
    """What it passes on is not from this machine: keys are for that."""
    for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "Via", "X-Forwarded-Host", "X-Forwarded-Proto"):
        answer = requests.get(keyless.link(), headers={name: "203.0.113.9"}, timeout=10, allow_redirects=False)
        assert (answer.status_code, "Set-Cookie" in answer.headers) == (403, False), name
        assert "another machine" not in answer.text, "who asked the proxy is not known"
