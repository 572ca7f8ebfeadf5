"""Download one file: completely, or with the reason for the failure.

The server may be slow, truncate the file, send something else, or redirect into an inner network. A truncated download
is resumed if the server confirms that the file has not changed, else restarted.
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
from typing import Any, BinaryIO
from urllib.parse import urljoin

from voicequeue.net.address_policy import AddressPolicy
from voicequeue.net.http_client import request
from voicequeue.net.http_types import HttpTimeouts, RequestFailed, Response, ResponseTooLarge, Target, UrlNotAllowed
from voicequeue.version import USER_AGENT

REDIRECTS_MAX = 5

#: The most connections of one attempt: the first, and those that resume or restart it.
CONNECTIONS_MAX = 6

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RANGE = re.compile(r"bytes ([0-9]{1,15})-[0-9]{1,15}/([0-9]{1,15})")
#: Validators are sent back as received: only texts that are harmless in a header.
_ETAG, _DATE = re.compile(r'"[!#-~]{0,200}"'), re.compile(r"[A-Za-z0-9,: +-]{1,50}")
_HEADERS = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}


class DownloadFailed(Exception):
    """The file was not downloaded; the text gives the reason and no URL.

    `is_permanent`: further attempts would not succeed. `retry_after_s`: the server's Retry-After in seconds.
    """

    def __init__(self, reason: str, *, for_good: bool = False, after: float = 0.0) -> None:
        super().__init__(reason)
        self.is_permanent, self.retry_after_s = for_good, after


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """The limits of a download, in bytes and seconds.

    `min_speed` is in bytes a second, averaged over one connection and checked after
    `min_speed_grace_s`.
    """

    max_bytes: int = 200_000_000
    total_s: float = 600.0
    connect_s: float = 5.0
    idle_s: float = 20.0
    min_speed: float = 4096.0
    min_speed_grace_s: float = 20.0


@dataclass(slots=True)
class Download:
    """The bytes of a file that were received, in `file`, and what is needed to resume it."""

    file: BinaryIO
    size: int = 0
    total: int | None = None
    head: bytes = b""
    #: A strong ETag or a Last-Modified date; None if the server sends neither.
    validator: str | None = None
    _hash: Any = field(default_factory=sha256)

    @property
    def sha256(self) -> str:
        """The digest of all bytes received, in hex."""
        return str(self._hash.hexdigest())

    def range_headers(self) -> dict[str, str]:
        """Return the headers that request the rest; none if the download cannot be resumed."""
        if not (self.size and self.validator):
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self.validator}

    def restart(self, response: Response) -> None:
        """Discard what was received, because the whole file follows. Raises DownloadFailed."""
        self.file.seek(0)
        self.file.truncate()
        self.size, self.head, self._hash = 0, b"", sha256()
        self.total, self.validator = _length(response), _validator(response.headers)

    def is_continued_by(self, response: Response) -> bool:
        """Return whether the response is the rest of this very file."""
        content_range = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        return (
            content_range is not None
            and int(content_range[1]) == self.size
            and self.total in (None, int(content_range[2]))
            and _validator(response.headers) in (None, self.validator)
        )

    def invalidate(self) -> None:
        """Note that the file has changed: the next connection restarts it."""
        self.validator = None

    def append(self, piece: bytes) -> None:
        """Add the next bytes."""
        self.file.write(piece)
        self._hash.update(piece)
        self.size += len(piece)
        self.head = (self.head + piece)[:64] if len(self.head) < 64 else self.head


class Downloader:
    """Download files. Safe to share between threads."""

    def __init__(self, *, allowed: AddressPolicy, bounds: DownloadLimits, certificates: str = "") -> None:
        self._allowed = allowed
        self._bounds = bounds
        self._certificates = certificates

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        from requests.utils import DEFAULT_CA_BUNDLE_PATH  # noqa: PLC0415  most processes that import this send nothing

        return ssl.create_default_context(cafile=self._certificates or DEFAULT_CA_BUNDLE_PATH)

    def download(self, url: str, into: BinaryIO) -> Download:
        """Download the whole file. Raises DownloadFailed."""
        download = Download(into)
        deadline = time.monotonic() + self._bounds.total_s
        try:
            for _ in range(CONNECTIONS_MAX):
                size_before = download.size
                try:
                    self._continue(url, download, deadline)
                    return download
                except RequestFailed as error:
                    reason = f"{error}, after {download.size:,} bytes" if download.size else str(error)
                    if download.size <= size_before:
                        break
            raise DownloadFailed(reason)
        except (UrlNotAllowed, ResponseTooLarge) as error:
            raise DownloadFailed(str(error), for_good=True) from None

    def _continue(self, url: str, download: Download, deadline: float) -> None:
        """Read on over one connection. Raises DownloadFailed, UrlNotAllowed, ResponseTooLarge, RequestFailed."""
        range_headers = download.range_headers()
        with self._final_response(url, range_headers, deadline) as response:
            if response.status == 200:
                download.restart(response)
            elif response.status != 206 or not range_headers:
                raise DownloadFailed(f"HTTP {response.status}", after=response.retry_after_s())
            elif not download.is_continued_by(response):
                download.invalidate()
                raise RequestFailed("the file has changed during the download")
            self._check(download, response)
            self._read(response, download)

    @contextmanager
    def _final_response(self, url: str, range_headers: Mapping[str, str], deadline: float) -> Iterator[Response]:
        """Follow redirects. Each address is checked like the first."""
        for _ in range(REDIRECTS_MAX + 1):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise DownloadFailed(f"not complete within {self._bounds.total_s:g} s")
            times = HttpTimeouts(self._bounds.connect_s, remaining, idle_s=self._bounds.idle_s)
            headers = {**_HEADERS, **range_headers}
            with request(
                "GET", Target.parse(url), headers=headers, policy=self._allowed, timeouts=times, tls=self._tls
            ) as response:
                if response.status not in _REDIRECTS:
                    yield response
                    return
                url = _redirected(url, response.headers.get("Location"))
        raise DownloadFailed(f"more than {REDIRECTS_MAX} redirects")

    def _check(self, download: Download, response: Response) -> None:
        if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise DownloadFailed("the server compresses the file although it was asked not to")
        if download.total is not None and download.total > self._bounds.max_bytes:
            raise ResponseTooLarge(f"{download.total:,} bytes long; at most {self._bounds.max_bytes:,} are allowed")
        if download.total is None and response.headers.get("Transfer-Encoding", "").lower() != "chunked":
            raise DownloadFailed("the server does not send the length, so a truncated file would not be noticed")

    def _read(self, response: Response, download: Download) -> None:
        started, size_before = time.monotonic(), download.size
        for piece in response.iter_body(max_bytes=self._bounds.max_bytes - size_before):
            download.append(piece)
            elapsed = time.monotonic() - started
            if (
                elapsed > self._bounds.min_speed_grace_s
                and download.size - size_before < elapsed * self._bounds.min_speed
            ):
                raise DownloadFailed(f"too slow: {download.size:,} bytes in {elapsed:.0f} s")
        if download.total not in (None, download.size):
            raise RequestFailed(f"{download.size:,} of {download.total:,} bytes received")


def _redirected(url: str, location: str | None) -> str:
    if not location:
        raise DownloadFailed("a redirect without a Location")
    try:
        return urljoin(url, location)
    except ValueError:
        raise UrlNotAllowed("the Location of a redirect is not a URL") from None


def _length(response: Response) -> int | None:
    """Return the Content-Length, None without one. Raises DownloadFailed if it is not a number."""
    length = response.integer_header("Content-Length")
    if length is None and "Content-Length" in response.headers:
        raise DownloadFailed("its Content-Length is not a valid number")
    return length


def _validator(headers: Mapping[str, str]) -> str | None:
    """Return a strong ETag or the Last-Modified date. A weak ETag does not promise the same bytes."""
    etag, changed = headers.get("ETag", ""), headers.get("Last-Modified", "")
    if _ETAG.fullmatch(etag):
        return etag
    return changed if _DATE.fullmatch(changed) else None
