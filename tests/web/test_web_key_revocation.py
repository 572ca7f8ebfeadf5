"""A key that is revoked or changed: what lasts ends, and each other gateway follows within 10 seconds."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from config.settings import Settings
from tests.conftest import eventually
from tests.support.rights import url_with_rights
from tests.web.conftest import KEYS, SETTING, Gateway, serving
from tests.web.seen import log_in
from voicequeue import Scope, VoiceQueue
from voicequeue.client.api_keys import NewApiKey
from voicequeue.client.queue import in_namespace
from workers.gateway.app import create_app
from workers.gateway.security import admission, key_registry
from workers.gateway.server.connections import ServerLimits

#: Seconds in which a change must be in force everywhere.
IN_FORCE_S = 10.0
JOB = {"audio_url": "https://a.example/a.wav"}

#: How a key ends, or changes.
CHANGES: dict[str, Callable[[VoiceQueue], Any]] = {
    "revoked": lambda queue: queue.revoke_api_key("shop"),
    "rotated away": lambda queue: queue.rotate_api_key("shop", overlap=0),
    "expired": lambda queue: queue.edit_api_key("shop", limits={"expires_at": queue.status().at}),
    "without the scope": lambda queue: queue.edit_api_key("shop", scopes=[Scope.OPERATE]),
}
CHANGED = pytest.mark.parametrize("change", CHANGES)


@pytest.fixture
def shop(queue: VoiceQueue) -> NewApiKey:
    """Return the key of a shop."""
    return queue.create_api_key("shop", [Scope.READ, Scope.ENQUEUE], namespace="shop")


@pytest.fixture
def checked_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let gateways check more often what they check every few seconds."""
    monkeypatch.setattr(key_registry, "REFRESH_S", 0.1)
    monkeypatch.setattr(admission, "CHECK_S", 0.2)


def bearer(secret: str) -> dict[str, str]:
    """Return the headers of a request with this key."""
    return {"Authorization": f"Bearer {secret}"}


@CHANGED
@pytest.mark.usefixtures("checked_often")
def test_open_event_streams_end_with_their_key(
    gateway: Gateway, queue: VoiceQueue, shop: NewApiKey, change: str
) -> None:
    """That of the API and that of the page, though nothing happens; others continue."""
    # Before the first request: until the gateway reads the keys again, it does not know a newer one.
    another = queue.create_api_key("b", [Scope.READ], namespace="b")
    cookies = log_in(gateway, shop.secret).cookies
    with ExitStack() as streams:
        api, page, other = (
            streams.enter_context(requests.get(gateway.url + path, stream=True, timeout=20, **more))
            for path, more in (
                ("/v1/events", {"headers": bearer(shop.secret)}),
                ("/live", {"cookies": cookies}),
                ("/v1/events", {"headers": bearer(another.secret)}),
            )
        )
        lines = [answer.iter_lines(chunk_size=1) for answer in (api, page, other)]
        assert [next(line) for line in lines][1] == b": connected"

        CHANGES[change](queue)

        for ended in lines[:2]:
            assert not [line for line in ended if b"job_id" in line]
        in_namespace(queue, "b").enqueue(JOB)
        assert any(b"job_id" in line for line in lines[2])


def test_a_login_with_a_replaced_secret_ends_with_it(gateway: Gateway, queue: VoiceQueue, shop: NewApiKey) -> None:
    """Even if it was made during the overlap, in which both secrets are accepted."""
    rotated = queue.rotate_api_key("shop", overlap=2)
    cookies = [log_in(gateway, secret).cookies for secret in (shop.secret, rotated.secret)]

    def statuses() -> list[int]:
        pages = (requests.get(f"{gateway.url}/", cookies=of, allow_redirects=False, timeout=10) for of in cookies)
        return [page.status_code for page in pages]

    assert statuses() == [200, 200]
    eventually(lambda: statuses() == [303, 200])


class Connection:
    """A connection for a request whose body is sent piece by piece."""

    def __init__(self, gateway: Gateway, path: str, headers: dict[str, str]) -> None:
        address = urlsplit(gateway.url)
        self._socket = socket.create_connection((str(address.hostname), address.port or 0), timeout=10)
        fields = {"Host": address.netloc, "Transfer-Encoding": "chunked", "Connection": "close", **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._socket.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode())
        self.received = ""

    def send(self, piece: bytes) -> None:
        """Send a piece of the body; b"" is its end. The server may have ended the request."""
        with suppress(ConnectionError):
            self._socket.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))

    def receive(self, *, wait_s: float = 10.0) -> bool:
        """Wait for a piece of the response; return whether there was one."""
        self._socket.settimeout(wait_s)
        try:
            piece = self._socket.recv(65_536).decode()
        except TimeoutError:
            return False
        self.received += piece
        return piece != ""

    def close(self) -> None:
        """Close it."""
        self._socket.close()


@CHANGED
@pytest.mark.usefixtures("checked_often")
def test_an_open_upload_accepts_no_more_rows_when_its_key_ends(
    gateway: Gateway, queue: VoiceQueue, shop: NewApiKey, change: str
) -> None:
    """Its summary says why, and counts what was enqueued before."""
    headers = {**bearer(shop.secret), "Content-Type": "application/x-ndjson"}
    with closing(Connection(gateway, "/v1/batches/b/jobs", headers)) as upload:
        upload.send(json.dumps(JOB).encode() + b"\n")
        while '"line": 1' not in upload.received:
            assert upload.receive()

        CHANGES[change](queue)
        changed_at, number = time.monotonic(), 1
        while "summary" not in upload.received:
            number += 1
            upload.send(json.dumps({"audio_url": f"https://a.example/{number}.wav"}).encode() + b"\n")
            upload.receive(wait_s=0.05)
            assert time.monotonic() - changed_at < IN_FORCE_S

    summary = json.loads(next(line for line in upload.received.splitlines() if "summary" in line))["summary"]
    assert (summary["complete"], summary["problem"]["status"]) == (False, 401)
    assert summary["new"] == len(list(queue.jobs())) < number


@pytest.mark.parametrize("is_page", [False, True], ids=["API", "page"])
@pytest.mark.usefixtures("checked_often")
def test_a_body_that_arrives_after_its_key_has_ended_changes_nothing(
    gateway: Gateway, queue: VoiceQueue, is_page: bool
) -> None:
    """A request that was started in time cannot be completed later."""
    operator = queue.create_api_key("shop", Scope, namespace="*")
    if is_page:
        cookies = log_in(gateway, operator.secret).cookies
        page = requests.get(f"{gateway.url}/controls", cookies=cookies, timeout=10).text
        [token, *_] = re.findall(r'name="token" value="([^"]+)"', page)
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
        path, body, kind = "/do/pause", f"token={token}".encode(), "application/x-www-form-urlencoded"
    else:
        headers = bearer(operator.secret)
        path, body, kind = "/v1/jobs", json.dumps(JOB).encode(), "application/json"
    with closing(Connection(gateway, path, {**headers, "Content-Type": kind})) as request:
        request.send(body[:5])
        # The server handles the request: it does not answer before the body has ended.
        assert not request.receive(wait_s=0.3)
        queue.revoke_api_key("shop")
        request.send(body[5:])
        request.send(b"")
        assert request.receive()

    assert "401 Unauthorized" in request.received.splitlines()[0]
    assert list(queue.jobs()) == []
    assert queue.status().gate.holds == ()


@contextmanager
def two_gateways(redis_url: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Serve two gateways on one Redis, each with its own app, and yield their URLs."""
    settings = Settings(_env_file=None, REDIS_URL=redis_url, prefix=prefix, api_keys=SETTING)
    with ExitStack() as servers:
        one, other = (servers.enter_context(serving(create_app(settings), ServerLimits()))[0] for _ in ("one", "other"))
        yield one, other


@contextmanager
def under_load(urls: Iterable[str], secret: str) -> Iterator[list[int]]:
    """Send requests to all of these gateways all the time, and yield the statuses of the answers."""
    stopped, statuses = Event(), list[int]()

    def send(url: str) -> None:
        with requests.Session() as session:
            while not stopped.is_set():
                answer = session.get(f"{url}/v1/status", headers=bearer(secret), timeout=20)
                statuses.append(answer.status_code)

    with ThreadPoolExecutor() as threads:
        for url in urls:
            threads.submit(send, url)
            threads.submit(send, url)
        try:
            yield statuses
        finally:
            stopped.set()


@pytest.mark.endurance
def test_a_key_changed_on_one_gateway_is_changed_on_another_within_ten_seconds_under_load(
    valkey_url: str, prefix: str
) -> None:
    """One is created, one edited and one revoked by HTTP. With the intervals of production."""
    redis_url = url_with_rights(valkey_url, "gateway", prefix)
    with two_gateways(redis_url, prefix) as (one, other):

        def change(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
            answer = requests.request(
                method, f"{one}/v1/keys{path}", json=body, headers=bearer(KEYS["admin"][0]), timeout=20
            )
            assert answer.ok, answer.text
            return answer.json()

        def create(name: str) -> str:
            return str(change("POST", "", {"name": name, "scopes": ["read"], "namespace": "shop"})["secret"])

        def statuses(url: str, secrets: Iterable[str]) -> list[int]:
            return [
                requests.get(f"{url}/v1/status", headers=bearer(secret), timeout=20).status_code for secret in secrets
            ]

        load, edited, revoked = (create(name) for name in ("load", "edited", "revoked"))
        for url in (one, other):
            eventually(lambda url=url: statuses(url, (load, edited, revoked)) == [200] * 3)  # type: ignore[misc]
        with under_load((one, other), load) as answers:
            created = create("created")
            change("PATCH", "/edited", {"scopes": ["enqueue"]})
            change("POST", "/revoked/revoke")
            changed_at = time.monotonic()
            for url in (one, other):
                eventually(
                    lambda url=url: statuses(url, (created, edited, revoked)) == [200, 403, 401],  # type: ignore[misc]
                    within_s=IN_FORCE_S,
                )
            assert time.monotonic() - changed_at < IN_FORCE_S
            count = len(answers)
    assert count > 20
    assert set(answers) == {200}
