"""`python -m benchmarks.peers.upstream`: an upstream with little overhead, and counters.

It answers the requests of the contract in their simplest form. An order is ready after a time between two bounds.
`/report` returns counts of orders and polls, the lateness of the poll that saw each result first, and requests that
were made twice or are missing; `/reset` clears them, `/reset/LOW/HIGH` also sets the bounds, and
`/reset/VOICE/SONG/SIGMA` the medians of a log-normal distribution and its deviation.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

#: Distributes durations evenly over their range, the same way in every run.
_GOLDEN = 0.6180339887498949

_CLIP = (
    '{"clip_id":"%(id)s-%(number)d","title":"A song","tags":"warm folk, acoustic guitar","lyrics":"",'
    '"image_url":"https://cdn.example/%(id)s-%(number)d.png","audio_url":"https://cdn.example/%(id)s-%(number)d.mp3",'
    '"video_url":"https://cdn.example/%(id)s-%(number)d.mp4","created_at":"2026-01-01T00:00:00.000Z",'
    '"mv":"sonic-v5","duration":151.2,"state":"succeeded"}'
)
_NOT_READY = b'{"type":"not_ready","error":"The task is still in progress. Please try again later."}'
_CREDITS = b'{"credits":1000000000,"extra_credits":0}'


#: Returns how many seconds an order of this kind takes; the share is the part of orders that take less.
Durations = Callable[[str, float], float]


def durations(*parameters: float) -> Durations:
    """Return durations between two bounds, or log-normal ones: the median of voices, that of songs, and the deviation
    of the logarithms."""
    if len(parameters) == 2:
        low, high = parameters
        return lambda _kind, share: low + (high - low) * share
    voice, song, sigma = parameters
    medians, logarithm = {"voice": voice, "song": song}, NormalDist(0.0, sigma)
    return lambda kind, share: medians[kind] * math.exp(logarithm.inv_cdf(share))


@dataclass(slots=True)
class Order:
    """An order: its kind, when it is ready (monotonic seconds), and whether a poll has returned its result."""

    kind: str
    ready_at: float
    polls: int = 0
    is_seen: bool = False


@dataclass(slots=True)
class Counts:
    """The counts since the last reset."""

    orders: dict[str, Order] = field(default_factory=dict)
    subjects: set[str] = field(default_factory=set)
    lateness: list[float] = field(default_factory=list)
    doubles: int = 0
    strays: int = 0
    credits: int = 0


class Upstream:
    """Answers requests; the arguments are those of `durations`."""

    def __init__(self, *parameters: float) -> None:
        self._duration_of = durations(*parameters)
        self._orders = 0
        self.counts = Counts()

    def answer(self, method: bytes, path: bytes, body: bytes) -> tuple[int, bytes]:
        """Return the status and the body for one request."""
        if method == b"GET" and path.startswith(b"/api/v1/sonic/task/"):
            return self._poll(path[19:].decode())
        if method == b"POST" and path == b"/api/v1/sonic/create-voice":
            return self._order("voice", json.loads(body).get("audio_url"))
        if method == b"POST" and path == b"/api/v1/sonic/create":
            return self._music(json.loads(body))
        if path == b"/api/v1/get-credits":
            self.counts.credits += 1
            return 200, _CREDITS
        if path == b"/report":
            return 200, json.dumps(self.report()).encode()
        if path.startswith(b"/reset/"):
            self._duration_of = durations(*map(float, path[7:].split(b"/")))
            self.counts = Counts()
            return 200, b"{}"
        if path == b"/reset":
            self.counts = Counts()
            return 200, b"{}"
        self.counts.strays += 1
        return 404, b'{"error":"no such path"}'

    def report(self) -> dict[str, Any]:
        """Return the counts as JSON values; `unseen` are orders whose result was never returned."""
        orders = self.counts.orders.values()
        return {
            "voices": sum(order.kind == "voice" for order in orders),
            "songs": sum(order.kind == "song" for order in orders),
            "polls": sum(order.polls for order in orders),
            "unseen": sum(not order.is_seen for order in orders),
            "doubles": self.counts.doubles,
            "strays": self.counts.strays,
            "credits": self.counts.credits,
            "lateness": self.counts.lateness,
        }

    def _music(self, body: dict[str, Any]) -> tuple[int, bytes]:
        if body.get("task_type") != "persona_music" or not body.get("prompt") or "mv" not in body:
            self.counts.strays += 1
            return 400, b'{"error":"a field is missing","type":"bad_request"}'
        return self._order("song", body.get("persona_id"))

    def _order(self, kind: str, subject: str | None) -> tuple[int, bytes]:
        if not subject:
            self.counts.strays += 1
            return 400, b'{"error":"a field is missing","type":"bad_request"}'
        self.counts.doubles += subject in self.counts.subjects
        self.counts.subjects.add(subject)
        self._orders += 1
        task_id = f"{kind}-{self._orders:08}"
        duration_s = self._duration_of(kind, self._orders * _GOLDEN % 1)
        self.counts.orders[task_id] = Order(kind, time.monotonic() + duration_s)
        return 200, b'{"code":200,"message":"success","task_id":"%s"}' % task_id.encode()

    def _poll(self, task_id: str) -> tuple[int, bytes]:
        order, now = self.counts.orders.get(task_id), time.monotonic()
        if order is None:
            self.counts.strays += 1
            return 400, b'{"error":"task not found.","type":"bad_request"}'
        order.polls += 1
        if now < order.ready_at:
            return 200, _NOT_READY
        self.counts.doubles += order.is_seen
        if not order.is_seen:
            order.is_seen = True
            self.counts.lateness.append(now - order.ready_at)
        return 200, _result(task_id, order.kind)


def _result(task_id: str, kind: str) -> bytes:
    if kind == "voice":
        data = f'{{"persona_id":"persona-{task_id}","name":"A voice"}}'
    else:
        data = f"[{','.join(_CLIP % {'id': task_id, 'number': number} for number in (0, 1))}]"
    return f'{{"code":200,"data":{data},"message":"success"}}'.encode()


class Connection(asyncio.Protocol):
    """A persistent connection with the subset of HTTP/1.1 that the contestants' clients use."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport for responses."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every complete request."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head, start = self._received[:end], end + 4
            size = _length(head)
            if len(self._received) < start + size:
                return
            body, self._received = self._received[start : start + size], self._received[start + size :]
            method, path, _ = head.split(b"\r\n", 1)[0].split(b" ")
            status, payload = self._upstream.answer(method, path, body)
            assert self._transport is not None
            self._transport.write(
                b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (status, len(payload), payload)
            )


def _length(head: bytes) -> int:
    """Return the length of the body; every client here sends Content-Length."""
    lower = head.lower()
    at = lower.find(b"\r\ncontent-length:")
    return int(lower[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


async def _serve(port: int, upstream: Upstream) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(upstream), "127.0.0.1", port, backlog=1024
    )
    async with server:
        await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.upstream", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ready", type=float, nargs="+", default=(0.0, 0.0), metavar="SECONDS")
    options = parser.parse_args()
    asyncio.run(_serve(options.port, Upstream(*options.ready)))


if __name__ == "__main__":
    main()
