"""Looks at recordings before a credit is spent on them: reachable, MP3 or WAV, long enough, whole.

Each is read to its end, as upstream would, but never from one's own network, and not for ever.
"""

from __future__ import annotations

import ssl
import threading
import time
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import TypeVar
from urllib.parse import urljoin

from voicequeue.errors import UnfitAudio
from voicequeue.ingest.audio import TAKEN, Audio, AudioReader
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
from voicequeue.net.per_host_executor import Lanes

T = TypeVar("T")

#: Recordings must be longer. Source: upstream's page on creating a voice.
LONGER_THAN_S = 10.0

REDIRECTS = 5

#: A server that says when it wants to be asked again is waited for so long (seconds) at most.
PATIENT_S = 30.0

#: So many items are looked at ahead of the one that is given next, and so many answers are remembered.
WINDOW, REMEMBERED = 1_000, 10_000

_REDIRECTED = frozenset({301, 302, 303, 307, 308})
_MEANINGS = {401: ": it is not public", 403: ": it is not public", 404: ": nothing is there", 410: ": it is gone"}
_HEADERS = {"User-Agent": f"voicequeue/{version('voicequeue')}", "Accept": "audio/*,*/*", "Accept-Encoding": "identity"}


SETTING = "VOICEQUEUE_AUDIO_ALLOW"
_NOBODY = Allowed(SETTING)
_PATIENCE = Times(connect_s=5.0, whole_s=300.0, answer_s=15.0, least_speed=8_000.0, slow_s=5.0)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a recording must be, and how it is asked for. Sizes in bytes, times in seconds.

    `shorter_than_s`: None where upstream tells no maximum. Trouble that may pass is tried once more `again_s` later.
    """

    allowed: Allowed = _NOBODY
    times: Times = _PATIENCE
    max_bytes: int = 200_000_000
    max_s: float | None = None
    again_s: float = 1.0
    at_once: int = 16
    per_host: int = 4


class _Passing(Exception):
    """It may be better in a moment, or `after` so many seconds; `unfit` is what it is if not."""

    def __init__(self, unfit: UnfitAudio, after: float = 0.0) -> None:
        super().__init__(unfit)
        self.unfit, self.after = unfit, after


class Recordings:
    """Fetches and judges one recording at a time. Safe to share between threads."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._tls = ssl.create_default_context()
        self._closed = threading.Event()

    def close(self) -> None:
        """What is being fetched is given up."""
        self._closed.set()

    def outcome(self, url: str) -> Audio | UnfitAudio:
        """The same as a value."""
        try:
            return self.look(url)
        except UnfitAudio as error:
            return UnfitAudio(error.kind, error.reason)  # without the traceback, which holds on to the connection

    def look(self, url: str) -> Audio:
        """What is there, if it is fit for a voice. Raises UnfitAudio."""
        try:
            return self._look(url)
        except _Passing as error:
            self._closed.wait(max(self._rules.again_s, min(error.after, PATIENT_S)))
        try:
            return self._look(url)
        except _Passing as error:
            raise error.unfit from None

    def _look(self, url: str) -> Audio:
        over = time.monotonic() + self._rules.times.whole_s
        redirected = ""
        for _ in range(REDIRECTS + 1):
            try:
                found = self._follow(url, over)
            except Refused as error:
                raise UnfitAudio("forbidden_address", f"{redirected}{error}") from None
            except TooSlow as error:
                raise UnfitAudio("too_slow", f"too slow: {error}") from None
            except RequestFailed as error:
                raise _Passing(UnfitAudio("unreachable", f"{redirected}{error}")) from None
            if isinstance(found, Audio):
                return self._judged(found)
            url, redirected = found, "redirected: "
        raise UnfitAudio("redirects", f"more than {REDIRECTS} redirects")

    def _follow(self, url: str, over: float) -> Audio | str:
        """The recording, or where it is instead."""
        times = self._rules.times
        left = Times(
            min(times.connect_s, max(0.01, over - time.monotonic())),
            max(0.01, over - time.monotonic()),
            times.answer_s,
            times.least_speed,
            times.slow_s,
        )
        target = Target.of(url)
        with request(
            "GET", target, headers=_HEADERS, allowed=self._rules.allowed, times=left, tls=self._tls
        ) as response:
            location = response.headers.get("Location")
            if response.status in _REDIRECTED and location:
                return _elsewhere(url, location)
            _check_status(response)
            return self._read(response)

    def _read(self, response: Response) -> Audio:
        reader = AudioReader()
        came = 0
        try:
            if (response.number("Content-Length") or 0) > self._rules.max_bytes:
                raise TooLarge
            for piece in _plain(response, self._rules.max_bytes):
                reader.feed(piece)
                came += len(piece)
                # Whatever else it is, the rest of it need not come.
                if self._closed.is_set() or reader.format not in (None, *TAKEN):
                    break
        except TooLarge:
            raise UnfitAudio("too_large", f"larger than {self._rules.max_bytes:,} bytes") from None
        except TruncatedResponse:
            raise _Passing(UnfitAudio("truncated", _cut_after(came, response))) from None
        return reader.end()

    def _judged(self, audio: Audio) -> Audio:
        longest = self._rules.max_s
        if not audio.is_taken:
            raise UnfitAudio("wrong_format", f"not MP3 or WAV: it is {audio.format}")
        if audio.missing:
            raise UnfitAudio("truncated", f"truncated {audio.format}: {audio.missing}")
        if audio.seconds <= LONGER_THAN_S:
            raise UnfitAudio("too_short", f"{audio.seconds:.1f} s long; more than {LONGER_THAN_S:g} s are needed")
        if longest is not None and audio.seconds > longest:
            raise UnfitAudio("too_long", f"{audio.seconds:.1f} s long; at most {longest:g} s are taken")
        return audio


def _elsewhere(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise Refused("the URL cannot be read") from None


def _check_status(response: Response) -> None:
    status = response.status
    if status == 200:
        return
    told = UnfitAudio("http_error", f"HTTP {status}{_MEANINGS.get(status, '')}")
    if status >= 500 or status in (408, 425, 429):
        raise _Passing(told, response.retry_after_s())
    raise told


def _cut_after(came: int, response: Response) -> str:
    announced = response.number("Content-Length")
    of = "" if announced is None else f" of {announced:,}"
    return f"truncated: the connection ended after {came:,}{of} bytes"


def _plain(response: Response, at_most: int) -> Iterator[bytes]:
    """The body's pieces as they were before they were packed for the way. Raises TooLarge, TruncatedResponse."""
    encoding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
    pieces = response.pieces(at_most=at_most)
    if encoding == "identity":
        return pieces
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnfitAudio("wrong_format", f"sent with the Content-Encoding {encoding[:20]!r}, which was not asked for")
    return _unpacked(pieces, at_most)


def _unpacked(pieces: Iterator[bytes], at_most: int) -> Iterator[bytes]:
    packed = zlib.decompressobj(zlib.MAX_WBITS | 32)
    left = at_most
    try:
        for piece in pieces:
            rest = piece
            while rest:
                plain = packed.decompress(rest, 65_536)
                rest = packed.unconsumed_tail
                left -= len(plain)
                if left < 0:
                    raise TooLarge
                yield plain
    except zlib.error:
        raise UnfitAudio("wrong_format", "its Content-Encoding does not hold: it cannot be unpacked") from None
    if not packed.eof:
        raise TruncatedResponse


@dataclass(slots=True)
class _Outcome:
    """What a recording is, once it is known: a future alone takes ten times the memory."""

    coming: Future[Audio | UnfitAudio] | None
    found: Audio | UnfitAudio | None = None

    def get(self) -> Audio | UnfitAudio | None:
        if self.coming is not None:
            self.found, self.coming = self.coming.result(), None
        return self.found


@dataclass(slots=True)
class Preflight:
    """Looks at many recordings: a few at once, a few of one host, each URL once. End it with `close`."""

    rules: Rules = field(default_factory=Rules)
    _recordings: Recordings = field(init=False)
    _lanes: Lanes = field(init=False)
    _known: OrderedDict[str, _Outcome] = field(init=False, default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self._recordings = Recordings(self.rules)
        self._lanes = Lanes(at_once=self.rules.at_once, per_host=self.rules.per_host)

    def __enter__(self) -> Preflight:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """What is still being fetched is given up, and not waited for."""
        self._recordings.close()

    def each(self, items: Iterable[T], url: Callable[[T], str | None]) -> Iterator[tuple[T, Audio | UnfitAudio | None]]:
        """Each item with what its recording is, in their order; None for one that has no URL.

        At most 1,000 items are read ahead.
        """
        ahead: deque[tuple[T, _Outcome | None]] = deque()
        for item in items:
            where = url(item)
            ahead.append((item, None if where is None else self._look(where)))
            if len(ahead) >= WINDOW:
                yield _with_outcome(*ahead.popleft())
        while ahead:
            yield _with_outcome(*ahead.popleft())

    def _look(self, url: str) -> _Outcome:
        known = self._known.get(url)
        if known is None:
            known = _Outcome(self._lanes.submit(_host(url), partial(self._recordings.outcome, url)))
            self._known[url] = known
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return known


def _with_outcome(item: T, found: _Outcome | None) -> tuple[T, Audio | UnfitAudio | None]:
    return item, None if found is None else found.get()


def _host(url: str) -> str:
    try:
        return Target.of(url).host
    except Refused:
        return ""
