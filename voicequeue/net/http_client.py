"""HTTP requests to URLs that callers name: sent only to checked addresses, and bounded in time and size.

The name is resolved once, and the connection is opened to the address that was checked, so a name that resolves
differently a moment later gains nothing. No proxy is used and no redirect is followed.
"""

from __future__ import annotations

import re
import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urlsplit

from voicequeue.net.address_policy import AddressPolicy
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

    `connect_s`: for name resolution and connecting. `whole_s`: for the whole exchange. `answer_s`: until the response's
    headers are received. `silent_s`: for one read or write (None: limited by `whole_s` alone). With `least_speed`
    (bytes a second) the body is given up when it has been slower for `slow_s` seconds.
    """

    connect_s: float = 3.0
    total_s: float = 10.0
    response_s: float | None = None
    min_speed: float = 0.0
    min_speed_window_s: float = 5.0
    idle_s: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The parts of a URL that a request needs: `path` percent-encoded, `login` as an Authorization header."""

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
        """Yield the body as it arrives. Raises ResponseTooLarge after `at_most` bytes, RequestFailed."""
        size = 0
        while piece := self._read():
            size += len(piece)
            if size > max_bytes:
                raise ResponseTooLarge(f"larger than {max_bytes:,} bytes")
            yield piece


@contextmanager
def request(
    method: str,
    target: Target,
    *,
    headers: Mapping[str, str],
    policy: AddressPolicy,
    timeouts: HttpTimeouts,
    tls: ssl.SSLContext,
    body: bytes | None = None,
) -> Iterator[Response]:
    """Send a request and give the response once its headers are received. Raises UrlNotAllowed, RequestFailed.

    `timeouts` apply until the end of the block, where the connection is closed.
    """
    from voicequeue.net.transport import exchange  # noqa: PLC0415  most commands send nothing; requests loads slowly

    with exchange(method, target, headers, body, policy, timeouts, tls) as response:
        yield response
