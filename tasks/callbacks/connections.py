"""One POST to an address that was checked, which ends in its time whatever the other side does.

The name is resolved here, once, and the connection is opened to the very address that was checked; so
a name that leads elsewhere a moment later gains nothing. No proxy is used and no redirect followed.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from urllib3.exceptions import LocationParseError
from urllib3.util import make_headers, parse_url
from urllib3.util.url import Url

from tasks.callbacks.addresses import Allowed

_PORTS = {"http": 80, "https": 443}


class Refused(Exception):
    """It leads to where nothing is sent; the text says why, and names no URL."""


class NotDelivered(Exception):
    """Nobody answered; the text says why, and names no URL."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the receiver said; `retry_after` in seconds, where it says so."""

    status: int
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class Times:
    """How long it may take, in seconds: to connect, and the whole of it."""

    connect_s: float = 3.0
    whole_s: float = 10.0


def parsed(url: str) -> Url:
    """The URL's parts, as they are sent. Raises Refused."""
    try:
        found = parse_url(url)
    except LocationParseError:
        raise Refused("the URL cannot be read") from None
    if found.scheme not in _PORTS or not found.host:
        raise Refused("the URL is neither http:// nor https://")
    return found


def place(url: Url) -> tuple[str, int]:
    """Host and port."""
    return (url.host or "").strip("[]"), url.port or _PORTS[url.scheme or "http"]


def post(
    url: Url, body: bytes, headers: Mapping[str, str], *, allowed: Allowed, times: Times, tls: ssl.SSLContext
) -> Reply:
    """Send it and read how the answer begins. Raises Refused, NotDelivered."""
    login = make_headers(basic_auth=url.auth) if url.auth else {}
    line = _Line(allowed, times)
    with line.cut_in_time(), _told_in_our_words(line):
        connection = _connection(url, line, tls)
        try:
            connection.request("POST", url.request_uri, body, {**headers, **login})
            answer = connection.getresponse()
            return Reply(answer.status, _seconds(answer.getheader("Retry-After")))
        finally:
            connection.close()


@dataclass(slots=True)
class _Line:
    """The way to the receiver, cut when its time is over."""

    allowed: Allowed
    times: Times
    is_cut: bool = False
    _held: list[socket.socket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def cut_in_time(self) -> Iterator[None]:
        # A read's own timeout begins anew with each byte that drips in.
        timer = threading.Timer(self.times.whole_s, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                while self._held:
                    self._held.pop().close()

    def opened(self, host: str, port: int) -> socket.socket:
        """A connection to an address of that host that may be sent to. Raises Refused, OSError."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise NotDelivered("its host is not known") from None
        whys = [self.allowed.why_not(host, str(address[0])) for *_, address in found]
        if None not in whys:
            raise _refused(whys[0])
        give_up = time.monotonic() + self.times.connect_s
        failed: OSError | None = None
        for (family, kind, protocol, _, address), why in zip(found, whys, strict=True):
            if why is None:
                try:
                    return self._connected(socket.socket(family, kind, protocol), host, address, give_up)
                except OSError as error:
                    failed = error
        raise NotDelivered(_why_not_connected(failed))

    def _connected(self, end: socket.socket, host: str, address: Any, give_up: float) -> socket.socket:
        try:
            end.settimeout(max(0.01, give_up - time.monotonic()))
            end.connect(address)
            if why := self.allowed.why_not(host, str(end.getpeername()[0])):
                raise _refused(why)
            end.settimeout(self.times.whole_s)
            self._hold(end)
        except BaseException:
            end.close()
            raise
        return end

    def _hold(self, end: socket.socket) -> None:
        with self._lock:
            self._held.append(end.dup())  # TLS takes the socket itself away
        if self.is_cut:
            self._cut()

    def _cut(self) -> None:
        with self._lock:
            self.is_cut = True
            for end in self._held:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


class _Plain(http.client.HTTPConnection):
    def __init__(self, host: str, port: int, opened: Callable[[str, int], socket.socket]) -> None:
        super().__init__(host, port)
        self._opened = opened

    def connect(self) -> None:
        self.sock = self._opened(self.host, self.port)


class _Secure(_Plain):
    default_port = 443

    def __init__(
        self, host: str, port: int, opened: Callable[[str, int], socket.socket], context: ssl.SSLContext
    ) -> None:
        super().__init__(host, port, opened)
        self._tls = context

    def connect(self) -> None:
        super().connect()
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host)


def _connection(url: Url, line: _Line, tls: ssl.SSLContext) -> _Plain:
    host, port = place(url)
    return _Secure(host, port, line.opened, tls) if url.scheme == "https" else _Plain(host, port, line.opened)


@contextmanager
def _told_in_our_words(line: _Line) -> Iterator[None]:
    """Neither the URL nor what the other side says stands in a reason."""
    try:
        yield
    except ssl.SSLCertVerificationError:
        raise NotDelivered("its certificate does not hold") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if line.is_cut or isinstance(error, TimeoutError):
            raise NotDelivered(f"no answer within {line.times.whole_s:g} s") from None
        raise NotDelivered(f"no answer: {type(error).__name__}") from None


def _refused(why: str | None) -> Refused:
    return Refused(f"its host leads to {why}, which VOICEQUEUE_CALLBACK_ALLOW does not name")


def _why_not_connected(error: OSError | None) -> str:
    return "no connection in time" if isinstance(error, TimeoutError) else f"no connection: {type(error).__name__}"


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else None
