"""The client: one account at MusicAPI."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from tasks.musicapi import requests
from tasks.musicapi.errors import NoAnswer, UpstreamError, answered_at, from_answer
from tasks.musicapi.requests import Call, Webhook
from tasks.musicapi.responses import Reading
from voicequeue.domain.song import Song

if TYPE_CHECKING:
    from tasks.musicapi.transport import Wire

K = TypeVar("K")
T = TypeVar("T")

#: Told of each call: the operation, what came of it ("ok", or the kind of the error), and the seconds it took.
Heard = Callable[[str, str, float], None]

#: A key shorter than this is a test's: it hides nothing, and may be part of any word.
SECRET_MIN = 8

#: So many characters of an answer that cannot be read are kept for a person.
EXCERPT_MAX = 500


class MusicApi:
    """One account at MusicAPI. Safe to share between threads; one per process.

    A POST is sent at most once: nothing here ever repeats one. Times are in seconds:
    `connect_s` to open a connection, `answer_s` for any silence of upstream's, and both together for all of a
    call, so that an answer which drips does not hold a step for ever. `connections`: of the calls that are begun
    together so many are made at once.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        connect_s: float = 5.0,
        answer_s: float = 30.0,
        connections: int = 16,
        heard: Heard | None = None,
    ) -> None:
        # Found here, for later it would cost a charge each time; and unnamed, for the key is a secret.
        if not (key.isascii() and key.isprintable()):
            raise ValueError("the key has a line break, or other characters that no header may carry")
        self._key = key.encode()
        self._heard = heard or _nobody
        self.connections = connections
        common = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
        self._headers = {"GET": common, "POST": {**common, "Content-Type": "application/json"}}
        self._wire: Wire = _wire(base_url, connect_s=connect_s, answer_s=answer_s)
        self._lines: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Close the pooled connections."""
        self._wire.close()

    def create_voice(self, audio_url: str, webhook: Webhook | None = None) -> str:
        """Order a voice (4 credits); gives upstream's task id. Raises UpstreamError."""
        return self.make(requests.create_voice(audio_url, webhook))

    def create_music(self, persona_id: str, song: Song, webhook: Webhook | None = None) -> str:
        """Order a song (15 credits, two clips); gives upstream's task id. Raises UpstreamError."""
        return self.make(requests.create_music(persona_id, song, webhook))

    def task(self, task_id: str) -> Reading:
        """What became of an order (free). Raises UpstreamError."""
        return self.make(requests.task(task_id))

    def credits(self) -> int:
        """Credits left on the account (free). Raises UpstreamError."""
        return self.make(requests.credits_left())

    def make(self, call: Call[T]) -> T:
        """Make one call, and wait for what its answer says. Raises UpstreamError."""
        return self._wire.start(self._make(call)).result()

    def begin(
        self,
        begun: Iterable[tuple[K, Call[T]]],
        told: Callable[[K, T | Exception, float], object],
        within: Callable[[K], AbstractContextManager[None]],
    ) -> None:
        """Make these calls, `connections` of them at once; each `within` that. `told` of what the answer says, or of
        the error, and of the seconds that it took, on a thread of ours: it must be quick."""
        self._wire.soon(self._begin, list(begun), told, within)

    def _begin(self, begun: list[tuple[K, Call[T]]], *how: Any) -> None:
        left = iter(begun)
        for _ in range(min(len(begun), self.connections)):
            line = asyncio.get_running_loop().create_task(self._line(left, *how))
            self._lines.add(line)
            line.add_done_callback(self._lines.discard)

    async def _line(
        self,
        left: Iterator[tuple[K, Call[T]]],
        told: Callable[[K, T | Exception, float], object],
        within: Callable[[K], AbstractContextManager[None]],
    ) -> None:
        """Make one call after the other; other lines take theirs from the same."""
        for key, call in left:
            began = time.monotonic()
            found: T | Exception
            try:
                with within(key):
                    found = await self._make(call)
            except Exception as error:
                found = error
            told(key, found, time.monotonic() - began)

    async def _make(self, call: Call[T]) -> T:
        began, outcome = time.monotonic(), "ok"
        try:
            return await self._answer(call)
        except UpstreamError as error:
            outcome = error.kind
            raise
        finally:
            self._heard(call.operation, outcome, time.monotonic() - began)

    async def _answer(self, call: Call[T]) -> T:
        """What `read` finds in the answer; it gives None for what it cannot read."""
        body = None if call.body is None else json.dumps(call.body, ensure_ascii=False).encode()
        got = await self._wire.send(call.method, call.path, self._headers[call.method], body)
        if 200 <= got.status < 300 and (found := call.read(_parsed(got.body))) is not None:
            return found
        body, now = self._without_secrets(got.body, call.secrets), answered_at(got.headers, time.time())
        error = from_answer(got.status, _parsed(body), got.headers, now)
        if isinstance(error, NoAnswer):
            error.answer = excerpt(body)
        raise error

    def _without_secrets(self, raw: bytes, secrets: Iterable[str]) -> bytes:
        """What upstream says beside the contract may be shown to others, and may quote the key and what it was sent."""
        named = [(self._key, b"(key)"), *((secret.encode(), b"(secret)") for secret in secrets)]
        for secret, name in named:
            if len(secret) >= SECRET_MIN:
                for written in {secret, secret.replace(b"/", rb"\/"), quote(secret, safe="").encode()}:
                    raw = raw.replace(written, name)
        return raw


def excerpt(raw: bytes) -> str | None:
    """The beginning of an answer, in characters that can be shown on one line; None where nothing came."""
    shown = "".join(each if each.isprintable() else " " for each in raw[: 8 * EXCERPT_MAX].decode(errors="replace"))
    text = " ".join(shown.split())
    return (text if len(text) <= EXCERPT_MAX else f"{text[: EXCERPT_MAX - 1]}…") or None


def load() -> None:
    """Load what requests are sent with. A worker does it before it forks, or each child would load its own."""
    # It takes a third of a worker's start: processes that send nothing (the gateway, Flower, callbacks) do without.
    import tasks.musicapi.transport  # noqa: F401, PLC0415


def _wire(base_url: str, *, connect_s: float, answer_s: float) -> Wire:
    from tasks.musicapi.transport import Route, Wire  # noqa: PLC0415  see `load`

    return Wire(Route.to(base_url), connect_s=connect_s, answer_s=answer_s)


def _nobody(operation: str, outcome: str, seconds: float) -> None:
    """Where nobody wants to hear of calls."""


def _parsed(raw: bytes) -> Any:
    """The JSON of an answer; None where there is none."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
