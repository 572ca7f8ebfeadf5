"""Thousands of forged webhooks, sent as fast as the gateway accepts them."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO
from urllib.parse import urlsplit

from voicequeue import Stage
from voicequeue.auth import signatures
from workers.gateway.api.webhooks import MAX_BODY_BYTES

#: A webhook that would give a job the task id of another order.
BODY = b'{"task_id": "another"}'

#: Requests sent before the first response is read.
WINDOW = 20

CONNECTIONS = 4


class Forger:
    """Requests of every kind that must be rejected, for existing jobs. `secret` is the gateway's own.

    In each request a single part is wrong, so this part decides.
    """

    def __init__(self, secret: str, job_ids: Sequence[str]) -> None:
        self._secret = secret
        self._job_ids = job_ids
        #: By name: how to build the request, and the status of its rejection.
        self.kinds: dict[str, tuple[Callable[[str], bytes], int]] = {
            "a forged token": (lambda job: self._request(self._path(job, secret="wrong"), job), 401),
            "another attempt's token": (lambda job: self._request(self._path(job) + "&attempt=2", job), 401),
            "a forged signature": (lambda job: self._request(self._path(job), job, secret="wrong"), 401),
            "an altered body": (lambda job: self._request(self._path(job), job, sent=BODY + b" "), 401),
            "a replay": (lambda job: self._request(self._path(job), job, age_s=301), 401),
            "too large": (lambda job: self._request(self._path(job), job, length=MAX_BODY_BYTES + 1), 413),
            "no such stage": (lambda job: self._request(f"/hooks/musicapi/{job}/video?attempt=1", job), 422),
            "no such attempt": (lambda job: self._request(f"/hooks/musicapi/{job}/voice?attempt=x", job), 422),
            "a garbage path": (lambda job: self._request(f"/hooks/%2e%2e/{job}/%00%ff;'--", job), 404),
            "an unknown job": (lambda job: self._request(self._path(job[::-1]), job[::-1]), 404),
        }

    def request(self, kind: str, number: int) -> bytes:
        """Return the bytes of one request of this kind."""
        return self.kinds[kind][0](self._job_ids[number % len(self._job_ids)])

    def _path(self, job_id: str, *, secret: str | None = None) -> str:
        token = signatures.webhook_token(secret or self._secret, job_id, Stage.VOICE, 1)
        return f"/hooks/musicapi/{job_id}/voice?attempt=1&token={token}"

    def _request(
        self,
        path: str,
        job_id: str,
        *,
        secret: str | None = None,
        sent: bytes = BODY,
        age_s: float = 0,
        length: int | None = None,
    ) -> bytes:
        timestamp = str(int(time.time() - age_s))
        key = signatures.webhook_secret(secret or self._secret, job_id)
        lines = [
            f"POST {path} HTTP/1.1",
            "Host: gateway",
            f"Content-Length: {length or len(sent)}",
            f"X-Webhook-Timestamp: {timestamp}",
            f"X-Webhook-Signature: {signatures.sign_as_upstream(key, timestamp, BODY)}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + (b"" if length else sent)


def send_all(web: str, forger: Forger, kinds: Sequence[str]) -> Counter[tuple[str, int]]:
    """Send one request of each kind; return how often each kind got which status."""
    shares = [kinds[start::CONNECTIONS] for start in range(CONNECTIONS)]
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return sum(threads.map(lambda share: _send_share(web, forger, share), shares), Counter[tuple[str, int]]())


def _send_share(web: str, forger: Forger, kinds: Sequence[str]) -> Counter[tuple[str, int]]:
    """Send requests pipelined on one connection; a request that is too large gets its own connection."""
    statuses: Counter[tuple[str, int]] = Counter()
    large = [kind for kind in kinds if kind == "too large"]
    small = [kind for kind in kinds if kind != "too large"]
    with _connected(web) as connection, connection.makefile("rb") as answers:
        for start in range(0, len(small), WINDOW):
            window = small[start : start + WINDOW]
            connection.sendall(b"".join(forger.request(kind, start + place) for place, kind in enumerate(window)))
            statuses.update((kind, _status(answers)) for kind in window)
    for number, kind in enumerate(large):
        with _connected(web) as connection, connection.makefile("rb") as answers:
            connection.sendall(forger.request(kind, number))
            statuses[kind, _status(answers)] += 1
    return statuses


def _connected(web: str) -> socket.socket:
    address = urlsplit(web)
    return socket.create_connection((address.hostname or "", address.port or 80), timeout=30)


def _status(answers: BinaryIO) -> int:
    """Read one response to its end; return its status."""
    status = int(answers.readline().split()[1])
    length = 0
    while line := answers.readline().strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    answers.read(length)
    return status
