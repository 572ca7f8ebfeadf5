"""Check recordings before a credit is spent: reachable, MP3 or WAV, long enough, complete.

Each recording is read to its end, as upstream reads it, but never from the operator's own network, and in bounded time.
"""

from __future__ import annotations

import ssl
import threading
import time
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from typing import TypeVar
from urllib.parse import urljoin

from voicequeue.errors import UnfitAudio
from voicequeue.ingest.audio import ACCEPTED, Audio, AudioReader
from voicequeue.net.address_policy import Allowed
from voicequeue.net.http_client import (
    Refused,
    RequestFailed,
    Response,
    Target,
    Times,
    TooLarge,
    TooSlow,
    TruncatedResponse,
    request,
)
from voicequeue.net.per_host_executor import PerHostExecutor

T = TypeVar("T")

#: Recordings must be longer. Source: upstream's page on creating a voice.
LONGER_THAN_S = 10.0

REDIRECTS_MAX = 5

#: The longest Retry-After that is respected, in seconds.
RETRY_AFTER_MAX_S = 30.0

#: How many items are checked in advance, and how many results are cached.
WINDOW, CACHED_MAX = 1_000, 10_000

_REDIRECTED = frozenset({301, 302, 303, 307, 308})
_MEANINGS = {401: ": not public", 403: ": not public", 404: ": not found", 410: ": gone"}
_HEADERS = {"User-Agent": f"voicequeue/{version('voicequeue')}", "Accept": "audio/*,*/*", "Accept-Encoding": "identity"}


SETTING = "VOICEQUEUE_AUDIO_ALLOW"
_NONE_ALLOWED = Allowed(SETTING)
_TIMES = Times(connect_s=5.0, whole_s=300.0, answer_s=15.0, least_speed=8_000.0, slow_s=5.0)


@dataclass(frozen=True, slots=True)
class Rules:
    """The requirements for a recording, and the limits of its download. Sizes in bytes, times in seconds.

    `max_s`: the longest duration; None if there is no maximum. A temporary failure is retried once, `again_s` later.
    `at_once`: recordings that are checked concurrently, `per_host` of them from one host.
    """

    allowed: Allowed = _NONE_ALLOWED
    times: Times = _TIMES
    max_bytes: int = 200_000_000
    max_s: float | None = None
    again_s: float = 1.0
    at_once: int = 16
    per_host: int = 4


class _Temporary(Exception):
    """A failure to retry after `retry_after_s` seconds; `unfit` is the error if the retry fails as well."""

    def __init__(self, unfit: UnfitAudio, retry_after_s: float = 0.0) -> None:
        super().__init__(unfit)
        self.unfit, self.retry_after_s = unfit, retry_after_s


class Recordings:
    """Download and check one recording at a time. Safe to share between threads."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._tls = ssl.create_default_context()
        self._closed = threading.Event()

    def close(self) -> None:
        """Abort the downloads in progress."""
        self._closed.set()

    def outcome(self, url: str) -> Audio | UnfitAudio:
        """Return the error of `look` instead of raising it."""
        try:
            return self.look(url)
        except UnfitAudio as error:
            return UnfitAudio(error.kind, error.reason)  # without the traceback, which references the connection

    def look(self, url: str) -> Audio:
        """Return the recording behind the URL. Raises UnfitAudio."""
        try:
            return self._look(url)
        except _Temporary as error:
            self._closed.wait(max(self._rules.again_s, min(error.retry_after_s, RETRY_AFTER_MAX_S)))
        try:
            return self._look(url)
        except _Temporary as error:
            raise error.unfit from None

    def _look(self, url: str) -> Audio:
        deadline = time.monotonic() + self._rules.times.whole_s
        redirected = ""
        for _ in range(REDIRECTS_MAX + 1):
            try:
                received = self._receive(url, deadline)
            except Refused as error:
                raise UnfitAudio("forbidden_address", f"{redirected}{error}") from None
            except TooSlow as error:
                raise UnfitAudio("too_slow", f"too slow: {error}") from None
            except RequestFailed as error:
                raise _Temporary(UnfitAudio("unreachable", f"{redirected}{error}")) from None
            if isinstance(received, Audio):
                return self._checked(received)
            url, redirected = received, "redirected: "
        raise UnfitAudio("redirects", f"more than {REDIRECTS_MAX} redirects")

    def _receive(self, url: str, deadline: float) -> Audio | str:
        """Return the recording, or the URL that the server redirects to."""
        times = replace(self._rules.times, whole_s=max(0.01, deadline - time.monotonic()))
        target = Target.of(url)
        with request(
            "GET", target, headers=_HEADERS, allowed=self._rules.allowed, times=times, tls=self._tls
        ) as response:
            location = response.headers.get("Location")
            if response.status in _REDIRECTED and location:
                return _redirected(url, location)
            _check_status(response)
            return self._read(response)

    def _read(self, response: Response) -> Audio:
        reader = AudioReader()
        size = 0
        try:
            if (response.number("Content-Length") or 0) > self._rules.max_bytes:
                raise TooLarge
            for piece in _decoded(response, self._rules.max_bytes):
                reader.feed(piece)
                size += len(piece)
                # A recording of another format is not read further.
                if self._closed.is_set() or reader.format not in (None, *ACCEPTED):
                    break
        except TooLarge:
            raise UnfitAudio("too_large", f"larger than {self._rules.max_bytes:,} bytes") from None
        except TruncatedResponse:
            raise _Temporary(UnfitAudio("truncated", _truncated_after(size, response))) from None
        return reader.finish()

    def _checked(self, audio: Audio) -> Audio:
        max_s = self._rules.max_s
        if not audio.is_accepted:
            raise UnfitAudio("wrong_format", f"not MP3 or WAV: it is {audio.format}")
        if audio.missing:
            raise UnfitAudio("truncated", f"truncated {audio.format}: {audio.missing}")
        if audio.seconds <= LONGER_THAN_S:
            raise UnfitAudio("too_short", f"{audio.seconds:.1f} s long; more than {LONGER_THAN_S:g} s are required")
        if max_s is not None and audio.seconds > max_s:
            raise UnfitAudio("too_long", f"{audio.seconds:.1f} s long; at most {max_s:g} s are accepted")
        return audio


def _redirected(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise Refused("the URL cannot be read") from None


def _check_status(response: Response) -> None:
    status = response.status
    if status == 200:
        return
    unfit = UnfitAudio("http_error", f"HTTP {status}{_MEANINGS.get(status, '')}")
    if status >= 500 or status in (408, 425, 429):
        raise _Temporary(unfit, response.retry_after_s())
    raise unfit


def _truncated_after(size: int, response: Response) -> str:
    length = response.number("Content-Length")
    of_length = "" if length is None else f" of {length:,}"
    return f"truncated: the connection ended after {size:,}{of_length} bytes"


def _decoded(response: Response, at_most: int) -> Iterator[bytes]:
    """Return the pieces of the body without its Content-Encoding. Raises TooLarge, TruncatedResponse."""
    encoding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
    pieces = response.pieces(at_most=at_most)
    if encoding == "identity":
        return pieces
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnfitAudio("wrong_format", f"sent with the Content-Encoding {encoding[:20]!r}, which was not requested")
    return _decompressed(pieces, at_most)


def _decompressed(pieces: Iterator[bytes], at_most: int) -> Iterator[bytes]:
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 32)
    remaining = at_most
    try:
        for piece in pieces:
            rest = piece
            while rest:
                plain = decompressor.decompress(rest, 65_536)
                rest = decompressor.unconsumed_tail
                remaining -= len(plain)
                if remaining < 0:
                    raise TooLarge
                yield plain
    except zlib.error:
        raise UnfitAudio("wrong_format", "its Content-Encoding is invalid: it cannot be decompressed") from None
    if not decompressor.eof:
        raise TruncatedResponse


@dataclass(slots=True)
class _Outcome:
    """The result of a check. It drops the future, which takes ten times the memory of the result."""

    future: Future[Audio | UnfitAudio] | None
    result: Audio | UnfitAudio | None = None

    def get(self) -> Audio | UnfitAudio | None:
        """Wait for the result."""
        if self.future is not None:
            self.result, self.future = self.future.result(), None
        return self.result


@dataclass(slots=True)
class Preflight:
    """Check many recordings: each URL once, within the limits of `Rules`. End it with `close`."""

    rules: Rules = field(default_factory=Rules)
    _recordings: Recordings = field(init=False)
    _executor: PerHostExecutor = field(init=False)
    _outcomes: OrderedDict[str, _Outcome] = field(init=False, default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self._recordings = Recordings(self.rules)
        self._executor = PerHostExecutor(max_workers=self.rules.at_once, per_host=self.rules.per_host)

    def __enter__(self) -> Preflight:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Abort the downloads in progress, without waiting for them."""
        self._recordings.close()

    def each(self, items: Iterable[T], url: Callable[[T], str | None]) -> Iterator[tuple[T, Audio | UnfitAudio | None]]:
        """Yield each item with the result for its URL, in order; None for an item without a URL.

        Reads at most 1,000 items ahead.
        """
        ahead: deque[tuple[T, _Outcome | None]] = deque()
        for item in items:
            address = url(item)
            ahead.append((item, None if address is None else self._look(address)))
            if len(ahead) >= WINDOW:
                yield _with_outcome(*ahead.popleft())
        while ahead:
            yield _with_outcome(*ahead.popleft())

    def _look(self, url: str) -> _Outcome:
        outcome = self._outcomes.get(url)
        if outcome is None:
            outcome = _Outcome(self._executor.submit(_host(url), partial(self._recordings.outcome, url)))
            self._outcomes[url] = outcome
            if len(self._outcomes) > CACHED_MAX:
                self._outcomes.popitem(last=False)
        return outcome


def _with_outcome(item: T, outcome: _Outcome | None) -> tuple[T, Audio | UnfitAudio | None]:
    return item, None if outcome is None else outcome.get()


def _host(url: str) -> str:
    try:
        return Target.of(url).host
    except Refused:
        return ""
