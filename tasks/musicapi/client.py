"""Client of one MusicAPI account."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from tasks.musicapi import requests
from tasks.musicapi.errors import AmbiguousFailure, UpstreamError, error_from_response, response_time
from tasks.musicapi.requests import ApiRequest, Webhook
from tasks.musicapi.results import TaskResult
from voicequeue.domain.song import Song
from voicequeue.version import USER_AGENT

if TYPE_CHECKING:
    from tasks.musicapi.transport import HttpTransport

K = TypeVar("K")
T = TypeVar("T")

#: Called after each request with its operation, its outcome ("ok" or that of the error) and its duration in seconds.
RequestObserver = Callable[[str, str, float], None]

#: Shorter secrets are used in tests only. They are not masked: they may be part of any word.
SECRET_MIN_LENGTH = 8

#: The longest body (bytes) whose meaning is remembered.
SHORT_MAX = 200

#: The number of characters kept of a response that cannot be read.
EXCERPT_MAX = 500


class MusicApi:
    """One account at MusicAPI. Safe to share between threads; use one per process.

    Each request is sent at most once: the client never retries. `connect_s` limits opening a connection, and `answer_s`
    the time from then until the whole response is there, so that a slowly dripping one cannot block a task. `send_many`
    makes up to `connections` requests at once. Times are in seconds.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        connect_s: float = 5.0,
        answer_s: float = 30.0,
        connections: int = 16,
        on_request: RequestObserver | None = None,
    ) -> None:
        # Checked at the start: later, each attempt would leave a charge unsure. The key is secret, so it is not quoted.
        if not (key.isascii() and key.isprintable()):
            raise ValueError("the key contains a line break or other characters that are not allowed in a header")
        self._key = key.encode()
        self._on_request = on_request or _ignore
        self.connections = connections
        headers = {"Authorization": f"Bearer {key}", "Accept": "application/json", "User-Agent": USER_AGENT}
        self._transport: HttpTransport = _transport(base_url, headers, connect_s=connect_s, answer_s=answer_s)
        self._senders: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Close the pooled connections."""
        self._transport.close()

    def create_voice(self, audio_url: str, webhook: Webhook | None = None) -> str:
        """Order a voice (4 credits) and return upstream's task id. Raises UpstreamError."""
        return self.send(requests.create_voice(audio_url, webhook))

    def create_music(self, persona_id: str, song: Song, webhook: Webhook | None = None) -> str:
        """Order a song (15 credits, two clips) and return upstream's task id. Raises UpstreamError."""
        return self.send(requests.create_music(persona_id, song, webhook))

    def get_task(self, task_id: str) -> TaskResult:
        """Return the result of a task (free). Raises UpstreamError."""
        return self.send(requests.get_task(task_id))

    def get_credits(self) -> int:
        """Return the credits on the account (free). Raises UpstreamError."""
        return self.send(requests.get_credits())

    def send(self, request: ApiRequest[T]) -> T:
        """Send one request and return its parsed response. Raises UpstreamError."""
        return self._transport.run(self._send_observed(request)).result()

    def send_many(
        self,
        keyed_requests: Iterable[tuple[K, ApiRequest[T]]],
        on_complete: Callable[[K, T | Exception, float], object],
        span: Callable[[K], AbstractContextManager[None]],
    ) -> None:
        """Send requests without blocking, `connections` of them at once, each inside its `span`.

        `on_complete` receives the key, the parsed response or the exception, and the duration in seconds. It runs on
        the transport's thread and must return quickly.
        """
        self._transport.call_soon(self._start_senders, list(keyed_requests), on_complete, span)

    def _start_senders(self, keyed_requests: list[tuple[K, ApiRequest[T]]], *options: Any) -> None:
        remaining = iter(keyed_requests)
        for _ in range(min(len(keyed_requests), self.connections)):
            sender = asyncio.get_running_loop().create_task(self._send_remaining(remaining, *options))
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)

    async def _send_remaining(
        self,
        remaining: Iterator[tuple[K, ApiRequest[T]]],
        on_complete: Callable[[K, T | Exception, float], object],
        span: Callable[[K], AbstractContextManager[None]],
    ) -> None:
        """Send requests one after another; other senders take theirs from the same iterator."""
        for key, request in remaining:
            started = time.monotonic()
            outcome: T | Exception
            try:
                with span(key):
                    outcome = await self._send_observed(request)
            except Exception as error:
                outcome = error
            on_complete(key, outcome, time.monotonic() - started)

    async def _send_observed(self, request: ApiRequest[T]) -> T:
        started, outcome = time.monotonic(), "ok"
        try:
            return await self._send(request)
        except UpstreamError as error:
            outcome = error.outcome
            raise
        finally:
            self._on_request(request.operation, outcome, time.monotonic() - started)

    async def _send(self, request: ApiRequest[T]) -> T:
        body = None if request.body is None else json.dumps(request.body, ensure_ascii=False).encode()
        response = await self._transport.send(request.method, request.path, body)
        if 200 <= response.status < 300 and (parsed := _read(request.parse, response.body)) is not None:
            return parsed
        masked = self._masked(response.body, request.secrets)
        now = response_time(response.headers, time.time())
        error = error_from_response(response.status, _parse_json(masked), response.headers, now)
        if isinstance(error, AmbiguousFailure):
            error.answer = excerpt(masked)
        raise error

    def _masked(self, raw: bytes, secrets: Iterable[str]) -> bytes:
        """Replace the key and other secrets in a response: texts outside the contract are shown to users and may
        quote the request."""
        labelled = [(self._key, b"(key)"), *((secret.encode(), b"(secret)") for secret in secrets)]
        for secret, label in labelled:
            if len(secret) >= SECRET_MIN_LENGTH:
                for encoded in {secret, secret.replace(b"/", rb"\/"), quote(secret, safe="").encode()}:
                    raw = raw.replace(encoded, label)
        return raw


def excerpt(raw: bytes) -> str | None:
    """Return the beginning of a response body as one printable line; None for an empty one."""
    text = raw[: 8 * EXCERPT_MAX].decode(errors="replace")
    printable = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(printable.split())
    return (line if len(line) <= EXCERPT_MAX else f"{line[: EXCERPT_MAX - 1]}…") or None


def preload(base_url: str) -> None:
    """Import the HTTP stack, and read its certificates. A worker calls this before it forks, so that its children share
    them."""
    # The import is a third of a worker's start-up time; the gateway, Flower and callback workers never need it.
    from tasks.musicapi.transport import Endpoint  # noqa: PLC0415

    with suppress(OSError, ValueError):  # raised again, and reported, when the client is built
        Endpoint.from_environment(base_url)


def _transport(base_url: str, headers: Mapping[str, str], *, connect_s: float, answer_s: float) -> HttpTransport:
    from tasks.musicapi.transport import Endpoint, HttpTransport  # noqa: PLC0415  see `preload`

    return HttpTransport(Endpoint.from_environment(base_url), headers, connect_s=connect_s, answer_s=answer_s)


def _ignore(operation: str, outcome: str, seconds: float) -> None:
    """Observe no requests."""


def _read(parse: Callable[[Any], T | None], raw: bytes) -> T | None:
    """Return what a response body says; None if it cannot be read."""
    return _read_short(parse, raw) if len(raw) <= SHORT_MAX else parse(_parse_json(raw))


@lru_cache(maxsize=64)
def _read_short(parse: Callable[[Any], T | None], raw: bytes) -> T | None:
    """Return what a short body says; upstream repeats the one of a task that is not ready."""
    return parse(_parse_json(raw))


def _parse_json(raw: bytes) -> Any:
    """Return the JSON value of a response body; None where it is not JSON."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
