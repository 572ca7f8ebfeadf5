"""Check recordings before a credit is spent: reachable, MP3 or WAV, long enough, complete.

Each recording is read to its end, as upstream reads it, but never from the operator's own network, and in bounded time.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, TypeVar
from urllib.parse import urljoin

from voicequeue.domain.spec import is_object_url
from voicequeue.errors import InvalidAudioError
from voicequeue.ingest.audio import ACCEPTED, Audio, AudioReader
from voicequeue.net.address_policy import AddressPolicy
from voicequeue.net.http_client import request
from voicequeue.net.http_types import (
    HttpTimeouts,
    RequestFailed,
    Response,
    ResponseTooLarge,
    ResponseTooSlow,
    Target,
    TruncatedResponse,
    UrlNotAllowed,
)
from voicequeue.net.per_host_executor import PerHostExecutor
from voicequeue.version import USER_AGENT

log = logging.getLogger("voicequeue")

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
HEADERS = {"User-Agent": USER_AGENT, "Accept": "audio/*,*/*", "Accept-Encoding": "identity"}


ALLOWED_HOSTS_SETTING = "VOICEQUEUE_AUDIO_ALLOWED_HOSTS"
_NONE_ALLOWED = AddressPolicy(ALLOWED_HOSTS_SETTING)
_TIMES = HttpTimeouts(connect_s=5.0, total_s=300.0, response_s=15.0, min_speed=8_000.0, min_speed_window_s=5.0)


@dataclass(frozen=True, slots=True)
class RecordingRules:
    """The requirements for a recording, and the limits of its download. Sizes in bytes, times in seconds.

    `max_s`: the longest duration; None if there is no maximum. A temporary failure is retried once, `retry_delay_s`
    later. `max_concurrent`: recordings that are checked concurrently, `max_per_host` of them from one host.
    """

    policy: AddressPolicy = _NONE_ALLOWED
    timeouts: HttpTimeouts = _TIMES
    max_bytes: int = 200_000_000
    max_s: float | None = None
    retry_delay_s: float = 1.0
    max_concurrent: int = 16
    max_per_host: int = 4


class TemporaryFailure(Exception):
    """A failure to retry after `retry_after_s` seconds; `unfit` is the error if the retry fails as well."""

    def __init__(self, unfit: InvalidAudioError, retry_after_s: float = 0.0) -> None:
        super().__init__(unfit)
        self.unfit, self.retry_after_s = unfit, retry_after_s


class UndecodableError(InvalidAudioError):
    """The content was sent with a Content-Encoding that cannot be read, and is not known."""


class RecordingChecker:
    """Download and check one recording at a time. Safe to share between threads."""

    _headers: ClassVar[Mapping[str, str]] = HEADERS
    _accepted: ClassVar[frozenset[int]] = frozenset({200})

    def __init__(self, rules: RecordingRules) -> None:
        self._rules = rules
        self._tls = ssl.create_default_context()
        self._closed = threading.Event()

    def close(self) -> None:
        """Abort the downloads in progress."""
        self._closed.set()

    def check_result(self, url: str) -> Audio | InvalidAudioError:
        """Return the error of `check` instead of raising it."""
        try:
            return self.check(url)
        except InvalidAudioError as error:
            return InvalidAudioError(error.kind, error.reason)  # without the traceback, which references the connection

    def check(self, url: str) -> Audio:
        """Return the recording behind the URL. Raises InvalidAudioError."""
        try:
            return self.attempt(url)
        except TemporaryFailure as error:
            self._closed.wait(max(self._rules.retry_delay_s, min(error.retry_after_s, RETRY_AFTER_MAX_S)))
        try:
            return self.attempt(url)
        except TemporaryFailure as error:
            raise error.unfit from None

    def attempt(self, url: str) -> Audio:
        """Like `check`, once. Raises InvalidAudioError, and TemporaryFailure for what may pass at a later attempt."""
        deadline = time.monotonic() + self._rules.timeouts.total_s
        redirected = ""
        for _ in range(REDIRECTS_MAX + 1):
            try:
                received = self._receive(url, deadline)
            except UrlNotAllowed as error:
                raise InvalidAudioError("forbidden_address", f"{redirected}{error}") from None
            except ResponseTooSlow as error:
                raise InvalidAudioError("too_slow", f"too slow: {error}") from None
            except RequestFailed as error:
                raise TemporaryFailure(InvalidAudioError("unreachable", f"{redirected}{error}")) from None
            if isinstance(received, Audio):
                return received
            url, redirected = received, "redirected: "
        raise InvalidAudioError("redirects", f"more than {REDIRECTS_MAX} redirects")

    def _receive(self, url: str, deadline: float) -> Audio | str:
        """Return the recording, or the URL that the server redirects to."""
        times = replace(self._rules.timeouts, total_s=max(0.01, deadline - time.monotonic()))
        target = Target.parse(url)
        with request(
            "GET", target, headers=self._headers, policy=self._rules.policy, timeouts=times, tls=self._tls
        ) as response:
            location = response.headers.get("Location")
            if response.status in _REDIRECTED and location:
                return _redirected(url, location)
            self._check_status(response)
            return self._read(response)

    def _check_status(self, response: Response) -> None:
        status = response.status
        if status in self._accepted:
            return
        unfit = InvalidAudioError("http_error", f"HTTP {status}{_MEANINGS.get(status, '')}")
        if status >= 500 or status in (408, 425, 429):
            raise TemporaryFailure(unfit, response.retry_after_s())
        raise unfit

    def _read(self, response: Response) -> Audio:
        reader = AudioReader()
        size = 0
        try:
            if (response.integer_header("Content-Length") or 0) > self._rules.max_bytes:
                raise ResponseTooLarge
            for piece in decoded(response, self._rules.max_bytes):
                reader.feed(piece)
                size += len(piece)
                # A recording of another format is not read further.
                if self._closed.is_set() or reader.format not in (None, *ACCEPTED):
                    break
        except ResponseTooLarge:
            raise InvalidAudioError("too_large", f"larger than {self._rules.max_bytes:,} bytes") from None
        except TruncatedResponse:
            raise TemporaryFailure(InvalidAudioError("truncated", _truncated_after(size, response))) from None
        return self._checked(reader.finish())

    def _checked(self, audio: Audio) -> Audio:
        if not audio.is_accepted:
            raise InvalidAudioError("wrong_format", f"not MP3 or WAV: it is {audio.format}")
        if audio.missing:
            raise InvalidAudioError("truncated", f"truncated {audio.format}: {audio.missing}")
        self._check_duration(audio.seconds)
        return audio

    def _check_duration(self, seconds: float) -> None:
        max_s = self._rules.max_s
        if seconds <= LONGER_THAN_S:
            raise InvalidAudioError("too_short", f"{seconds:.1f} s long; more than {LONGER_THAN_S:g} s are required")
        if max_s is not None and seconds > max_s:
            raise InvalidAudioError("too_long", f"{seconds:.1f} s long; at most {max_s:g} s are accepted")


def _redirected(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise UrlNotAllowed("the URL cannot be read") from None


def _truncated_after(size: int, response: Response) -> str:
    length = response.integer_header("Content-Length")
    of_length = "" if length is None else f" of {length:,}"
    return f"truncated: the connection ended after {size:,}{of_length} bytes"


def decoded(response: Response, at_most: int) -> Iterator[bytes]:
    """Return the pieces of the body without its Content-Encoding. Raises ResponseTooLarge, TruncatedResponse."""
    encoding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
    pieces = response.iter_body(max_bytes=at_most)
    if encoding == "identity":
        return pieces
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UndecodableError(
            "wrong_format", f"sent with the Content-Encoding {encoding[:20]!r}, which was not requested"
        )
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
                    raise ResponseTooLarge
                yield plain
    except zlib.error:
        raise UndecodableError("wrong_format", "its Content-Encoding is invalid: it cannot be decompressed") from None
    if not decompressor.eof:
        raise TruncatedResponse


@dataclass(slots=True)
class _Outcome:
    """The result of a check. It drops the future, which takes ten times the memory of the result."""

    future: Future[Audio | InvalidAudioError] | None
    result: Audio | InvalidAudioError | None = None

    def get(self) -> Audio | InvalidAudioError | None:
        """Wait for the result."""
        if self.future is not None:
            self.result, self.future = self.future.result(), None
        return self.result


@dataclass(slots=True)
class Preflight:
    """Check many recordings: each URL once, within the limits of `RecordingRules`. End it with `close`."""

    rules: RecordingRules = field(default_factory=RecordingRules)
    _recordings: RecordingChecker = field(init=False)
    _executor: PerHostExecutor = field(init=False)
    _outcomes: OrderedDict[str, _Outcome] = field(init=False, default_factory=OrderedDict)
    _has_skipped: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._recordings = RecordingChecker(self.rules)
        self._executor = PerHostExecutor(max_workers=self.rules.max_concurrent, per_host=self.rules.max_per_host)

    def __enter__(self) -> Preflight:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Abort the downloads in progress, without waiting for them."""
        self._recordings.close()

    def check_all(
        self, items: Iterable[T], url: Callable[[T], str | None]
    ) -> Iterator[tuple[T, Audio | InvalidAudioError | None]]:
        """Yield each item with the result for its URL, in order; None for an item without a URL.

        Reads at most 1,000 items ahead. An `s3://` URL is not checked: only workers can sign it.
        """
        ahead: deque[tuple[T, _Outcome | None]] = deque()
        for item in items:
            address = url(item)
            if address is not None and is_object_url(address):
                self._note_skipped()
                address = None
            ahead.append((item, None if address is None else self._look(address)))
            if len(ahead) >= WINDOW:
                yield _with_outcome(*ahead.popleft())
        while ahead:
            yield _with_outcome(*ahead.popleft())

    def _note_skipped(self) -> None:
        """Note once that recordings are not checked here."""
        if not self._has_skipped:
            log.warning("recordings with s3:// URLs are not checked here, because only workers can sign them")
        self._has_skipped = True

    def _look(self, url: str) -> _Outcome:
        outcome = self._outcomes.get(url)
        if outcome is None:
            outcome = _Outcome(self._executor.submit(_host(url), partial(self._recordings.check_result, url)))
            self._outcomes[url] = outcome
            if len(self._outcomes) > CACHED_MAX:
                self._outcomes.popitem(last=False)
        return outcome


def _with_outcome(item: T, outcome: _Outcome | None) -> tuple[T, Audio | InvalidAudioError | None]:
    return item, None if outcome is None else outcome.get()


def _host(url: str) -> str:
    try:
        return Target.parse(url).host
    except UrlNotAllowed:
        return ""
