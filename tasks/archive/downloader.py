"""One file behind a link: all of it, or the reason why not.

Whoever serves it may be slow, cut it off, send something else, or lead into somebody's inner network. What
was cut is gone on with where the server says that the file is still the same, else begun again.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from importlib.metadata import version
from typing import Any, BinaryIO
from urllib.parse import urljoin

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from voicequeue.net.address_policy import Allowed
from voicequeue.net.http_client import Refused, RequestFailed, Response, Target, Times, TooLarge, request

REDIRECTS_MAX = 5

#: How often one try goes on with, or begins again, what was cut.
CONNECTIONS_MAX = 6

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RANGE = re.compile(r"bytes ([0-9]{1,15})-[0-9]{1,15}/([0-9]{1,15})")
#: What is sent back to the server, as it came: texts that can stand in a header and mean nothing else there.
_ETAG, _DATE = re.compile(r'"[!#-~]{0,200}"'), re.compile(r"[A-Za-z0-9,: +-]{1,50}")
_ASKED = {"User-Agent": f"voicequeue/{version('voicequeue')}", "Accept": "*/*", "Accept-Encoding": "identity"}


class NotFetched(Exception):
    """It is not there; the text says why, and names no URL. `for_good`: no further try would do better;
    `after` (seconds): when the server wants to be asked again."""

    def __init__(self, reason: str, *, for_good: bool = False, after: float = 0.0) -> None:
        super().__init__(reason)
        self.for_good, self.after = for_good, after


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large a file may be (bytes) and how long it may take (seconds).

    `slowest` is in bytes a second, over all that came by one connection; asked for after `grace_s`.
    """

    max_bytes: int = 200_000_000
    file_s: float = 600.0
    connect_s: float = 5.0
    silent_s: float = 20.0
    slowest: float = 4096.0
    grace_s: float = 20.0


@dataclass(slots=True)
class Download:
    """What came of a file, in `into`, and what is known of the rest of it."""

    into: BinaryIO
    size: int = 0
    total: int | None = None
    beginning: bytes = b""
    #: What says that the file is still the same; None where nothing does.
    validator: str | None = None
    _hash: Any = field(default_factory=sha256)

    @property
    def sha256(self) -> str:
        """Of all that came, in hex."""
        return str(self._hash.hexdigest())

    def wanted(self) -> dict[str, str]:
        """The headers that ask for the rest, if there is something to go on with."""
        if not (self.size and self.validator):
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self.validator}

    def begin(self, response: Response) -> None:
        """A whole file comes: what came before is nothing. Raises NotFetched."""
        self.into.seek(0)
        self.into.truncate()
        self.size, self.beginning, self._hash = 0, b"", sha256()
        self.total, self.validator = _length(response), _validator(response.headers)

    def goes_on(self, response: Response) -> bool:
        """Return whether what comes is the rest of this very file."""
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        told = _validator(response.headers)
        return (
            found is not None
            and int(found[1]) == self.size
            and self.total in (None, int(found[2]))
            and told in (None, self.validator)
        )

    def forget(self) -> None:
        """The file has changed: it is begun again."""
        self.validator = None

    def add(self, piece: bytes) -> None:
        """So much more of it."""
        self.into.write(piece)
        self._hash.update(piece)
        self.size += len(piece)
        self.beginning = (self.beginning + piece)[:64] if len(self.beginning) < 64 else self.beginning


class Fetcher:
    """Fetches files. Safe to share between threads."""

    def __init__(self, *, allowed: Allowed, bounds: Bounds, certificates: str = "") -> None:
        self._allowed = allowed
        self._bounds = bounds
        self._certificates = certificates

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._certificates or DEFAULT_CA_BUNDLE_PATH)

    def fetch(self, url: str, into: BinaryIO) -> Download:
        """All that is behind the link. Raises NotFetched."""
        download = Download(into)
        until = time.monotonic() + self._bounds.file_s
        try:
            for _ in range(CONNECTIONS_MAX):
                before = download.size
                try:
                    self._go_on(url, download, until)
                    return download
                except RequestFailed as error:
                    cut = f"{error}, after {download.size:,} bytes" if download.size else str(error)
                    if download.size <= before:
                        break
            raise NotFetched(cut)
        except (Refused, TooLarge) as error:
            raise NotFetched(str(error), for_good=True) from None

    def _go_on(self, url: str, download: Download, until: float) -> None:
        """Read on from where it stands, by one connection. Raises NotFetched, Refused, TooLarge, RequestFailed."""
        with self._followed(url, download.wanted(), until) as response:
            if response.status == 200:
                download.begin(response)
            elif response.status != 206 or not download.wanted():
                raise _judged(response)
            elif not download.goes_on(response):
                download.forget()
                raise RequestFailed("the file has changed meanwhile")
            self._check(download, response)
            self._read(response, download)

    @contextmanager
    def _followed(self, url: str, wanted: Mapping[str, str], until: float) -> Iterator[Response]:
        """The answer at the end of all redirects; each of them is checked like the first address."""
        for _ in range(REDIRECTS_MAX + 1):
            left = until - time.monotonic()
            if left <= 0:
                raise NotFetched(f"it is not there within {self._bounds.file_s:g} s")
            times = Times(self._bounds.connect_s, left, silent_s=self._bounds.silent_s)
            asked = {**_ASKED, **wanted}
            with request(
                "GET", Target.of(url), headers=asked, allowed=self._allowed, times=times, tls=self._tls
            ) as response:
                if response.status not in _REDIRECTS:
                    yield response
                    return
                url = _redirected(url, response.headers.get("Location"))
        raise NotFetched(f"more than {REDIRECTS_MAX} redirects")

    def _check(self, download: Download, response: Response) -> None:
        if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise NotFetched("it comes packed, although that was not asked for")
        if download.total is not None and download.total > self._bounds.max_bytes:
            raise TooLarge(f"it has {download.total:,} bytes, of which {self._bounds.max_bytes:,} are allowed")
        if download.total is None and response.headers.get("Transfer-Encoding", "").lower() != "chunked":
            raise NotFetched("nothing says how long it is, so a cut would not be seen")

    def _read(self, response: Response, download: Download) -> None:
        began, before = time.monotonic(), download.size
        for piece in response.pieces(at_most=self._bounds.max_bytes - before):
            download.add(piece)
            took = time.monotonic() - began
            if took > self._bounds.grace_s and download.size - before < took * self._bounds.slowest:
                raise NotFetched(f"too slow: {download.size:,} bytes in {took:.0f} s")
        if download.total not in (None, download.size):
            raise RequestFailed(f"{download.size:,} bytes came, of {download.total:,}")


def _redirected(url: str, location: str | None) -> str:
    if not location:
        raise NotFetched("a redirect that leads nowhere")
    try:
        return urljoin(url, location)
    except ValueError:
        raise Refused("the redirect cannot be read") from None


def _judged(response: Response) -> NotFetched:
    return NotFetched(f"HTTP {response.status}", after=response.retry_after_s())


def _length(response: Response) -> int | None:
    """Return the length that the server names, if it names one. Raises NotFetched where it is none."""
    length = response.number("Content-Length")
    if length is None and "Content-Length" in response.headers:
        raise NotFetched("its Content-Length is not a number that can be used")
    return length


def _validator(headers: Mapping[str, str]) -> str | None:
    """Return a strong ETag, or the time of the last change; a weak ETag does not say that each byte is the same."""
    etag, changed = str(headers.get("ETag", "")), str(headers.get("Last-Modified", ""))
    if _ETAG.fullmatch(etag):
        return etag
    return changed if _DATE.fullmatch(changed) else None
