"""Types of an HTTP exchange with a URL that a caller names: its target, time limits, response and errors."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urlsplit

from voicequeue.net.retry_after import parse_retry_after
from voicequeue.texts import parse_int

_PORTS = {"http": 80, "https": 443}

#: Characters that a path or query may contain; all others are percent-encoded.
_SAFE = "%/:=&?~#+!$,;'@()*[]"

_NOT_IN_HOSTS = re.compile(r"[\x00-\x20\x7f\ud800-\udfff]")

#: The largest number read from a header.
_NUMBER_MAX = 10**15 - 1


class UrlNotAllowed(Exception):
    """The URL is invalid, or its address is not allowed; the text gives the reason and no URL."""


class RequestFailed(Exception):
    """No complete response was received; the text gives the reason and no URL."""


class ResponseTooSlow(RequestFailed):
    """The body arrived below the minimum speed."""


class TruncatedResponse(RequestFailed):
    """The connection ended before the response did."""


class ResponseTooLarge(Exception):
    """The body is larger than the caller allows."""


@dataclass(frozen=True, slots=True)
class HttpTimeouts:
    """The time limits of one exchange, in seconds.

    Attributes:
        connect_s: For name resolution and connecting.
        total_s: For the whole exchange.
        response_s: Until the headers of the response are received. None: `total_s`.
        min_speed: Bytes per second; a slower body is given up after `min_speed_window_s`. 0: no minimum.
        idle_s: For one read or write. None: limited by `total_s` alone.
    """

    connect_s: float = 3.0
    total_s: float = 10.0
    response_s: float | None = None
    min_speed: float = 0.0
    min_speed_window_s: float = 5.0
    idle_s: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The parts of a URL that a request needs: `path` percent-encoded, `authorization` as a header."""

    is_secure: bool
    host: str
    port: int
    path: str
    authorization: str | None = None

    @classmethod
    def parse(cls, url: str) -> Target:
        """Parse a URL; any text is accepted. Raises UrlNotAllowed."""
        try:
            return cls._of(urlsplit(url))
        except ValueError:  # including lone surrogates, which cannot be encoded
            raise UrlNotAllowed("the URL cannot be read") from None

    @classmethod
    def _of(cls, parts: SplitResult) -> Target:
        port, host = parts.port, parts.hostname
        if host and _NOT_IN_HOSTS.search(host):
            raise UrlNotAllowed("the URL cannot be read")
        if parts.scheme not in _PORTS or not host:
            raise UrlNotAllowed("the URL is neither http:// nor https://")
        path = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" * bool(parts.query))
        return cls(parts.scheme == "https", host, port or _PORTS[parts.scheme], path, _login(parts))

    @property
    def origin(self) -> str:
        """Scheme, host and port as text; the same for all URLs of one server."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_secure else 'http'}://{host}:{self.port}"


def _login(parts: SplitResult) -> str | None:
    if parts.username is None:
        return None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + b64encode(pair.encode()).decode()


@dataclass(frozen=True, slots=True)
class Response:
    """The status and headers of a response, and its body, to be read within `request`."""

    status: int
    headers: Mapping[str, str]
    #: Returns the next piece of the body, b"" after the last one. Raises RequestFailed.
    _read: Callable[[], bytes]

    def integer_header(self, header: str) -> int | None:
        """Return the whole number in a header of at most 15 digits; None if there is none, or several that differ."""
        values = {value.strip() for value in self.headers.get(header, "").split(",")}
        return parse_int(values.pop(), at_most=_NUMBER_MAX) if len(values) == 1 else None

    def retry_after_s(self) -> float:
        """Return the seconds in the Retry-After header, 0 if there is none that can be read."""
        return parse_retry_after(self.headers.get("Retry-After"), time.time()) or 0.0

    def iter_body(self, *, max_bytes: int) -> Iterator[bytes]:
        """Yield the body as it arrives. Raises ResponseTooLarge after `max_bytes`, RequestFailed."""
        size = 0
        while piece := self._read():
            size += len(piece)
            if size > max_bytes:
                raise ResponseTooLarge(f"larger than {max_bytes:,} bytes")
            yield piece
