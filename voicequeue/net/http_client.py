"""One HTTP request to an address that was checked, which ends in its time whatever the other side does.

The name is resolved here, once, and the connection is opened to the very address that was checked; so
a name that leads elsewhere a moment later gains nothing. No proxy is used and no redirect followed.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from voicequeue.net.address_policy import Allowed
from voicequeue.texts import whole_number

_PORTS = {"http": 80, "https": 443}

#: What may stand in a path or query as it is; the rest is quoted.
_AS_IT_IS = "%/:=&?~#+!$,;'@()*[]"

_NOT_IN_HOSTS = re.compile(r"[\x00-\x20\x7f\ud800-\udfff]")

#: A number in a header. Longer ones mean nothing, and Python reads none of thousands of digits.
_NUMBER_MAX = 10**15 - 1

_PIECE = 65_536


class Refused(Exception):
    """It leads to where nothing is sent; the text says why, and names no URL."""


class Unanswered(Exception):
    """Nobody answered, or not to the end; the text says why, and names no URL."""


class TooSlow(Unanswered):
    """It came so slowly that it was not waited for."""


class CutOff(Unanswered):
    """The answer ended before its end."""


class TooLarge(Exception):
    """More came than was asked for."""


@dataclass(frozen=True, slots=True)
class Times:
    """How long it may take, in seconds: to find the host and connect, and the whole of it.

    `answer_s`: until the answer's headers are there, `silent_s`: that nothing comes (None: as long as the whole). With
    `least_speed` (bytes a second) a body that came more slowly for `slow_s` seconds is not waited for any longer.
    """

    connect_s: float = 3.0
    whole_s: float = 10.0
    answer_s: float | None = None
    least_speed: float = 0.0
    slow_s: float = 5.0
    silent_s: float | None = None

    @property
    def patience_s(self) -> float:
        """How long one read may take."""
        return self.whole_s if self.silent_s is None else min(self.whole_s, self.silent_s)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads: `path` as it is sent, `login` as the header that says who asks."""

    is_secure: bool
    host: str
    port: int
    path: str
    login: str | None = None

    @classmethod
    def of(cls, url: str) -> Target:
        """Return where a URL leads. Raises Refused, whatever the text is."""
        try:
            return cls._of(urlsplit(url))
        except ValueError:  # among them half a character, which cannot be sent
            raise Refused("the URL cannot be read") from None

    @classmethod
    def _of(cls, found: SplitResult) -> Target:
        port, host = found.port, found.hostname
        if host and _NOT_IN_HOSTS.search(host):
            raise Refused("the URL cannot be read")
        if found.scheme not in _PORTS or not host:
            raise Refused("the URL is neither http:// nor https://")
        path = quote(found.path or "/", safe=_AS_IT_IS) + (f"?{quote(found.query, safe=_AS_IT_IS)}" * bool(found.query))
        return cls(found.scheme == "https", host, port or _PORTS[found.scheme], path, _login(found))

    @property
    def site(self) -> str:
        """Return scheme, host and port as text: the same for all URLs of one server."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_secure else 'http'}://{host}:{self.port}"


def _login(found: SplitResult) -> str | None:
    if found.username is None:
        return None
    pair = f"{unquote(found.username)}:{unquote(found.password or '')}"
    return "Basic " + b64encode(pair.encode()).decode()


@dataclass(frozen=True, slots=True)
class Response:
    """How an answer begins, and its body, to be read while the request stands."""

    status: int
    headers: http.client.HTTPMessage
    _answer: http.client.HTTPResponse
    _line: _Line

    def number(self, header: str) -> int | None:
        """Return the number in a header; None where there is none of 1 to 15 digits, or several that differ."""
        values = {value.strip() for line in self.headers.get_all(header, []) for value in str(line).split(",")}
        value = values.pop() if len(values) == 1 else ""
        return whole_number(value, at_most=_NUMBER_MAX)

    def pieces(self, *, at_most: int) -> Iterator[bytes]:
        """The body as it comes, of so many bytes at most. Raises TooLarge, Unanswered."""
        came = 0
        while piece := self._piece():
            came += len(piece)
            self._line.has_come(len(piece))
            if came > at_most:
                raise TooLarge(f"more than {at_most:,} bytes came")
            yield piece

    def _piece(self) -> bytes:
        with _told_in_our_words(self._line):
            piece = self._answer.read1(_PIECE)
            # A connection that was cut reads like one that was closed.
            if not piece and (self._line.is_cut or self._answer.length):
                raise http.client.IncompleteRead(b"")
            return piece


@contextmanager
def request(
    method: str,
    target: Target,
    *,
    headers: Mapping[str, str],
    allowed: Allowed,
    times: Times,
    tls: ssl.SSLContext,
    body: bytes | None = None,
) -> Iterator[Response]:
    """Send it, and give the answer as soon as its headers are there. Raises Refused, Unanswered.

    `times` hold until the end of the block; what was not read by then is not read any more.
    """
    login = {} if target.login is None else {"Authorization": target.login}
    line = _Line(allowed, times)
    connection = _connection(target, line, tls)
    with line.cut_in_time():
        try:
            with _told_in_our_words(line):
                connection.request(method, target.path, body, {**headers, **login})
                answer = connection.getresponse()
            with answer:  # which holds the connection as well, where the other side is to end it
                if line.is_cut:  # headers that were cut read like headers that have ended
                    raise line.why_cut()
                line.is_answered()
                yield Response(answer.status, answer.headers, answer, line)
        finally:
            connection.close()


@dataclass(slots=True)
class _Line:
    """The way to the other side, cut when its time is over."""

    allowed: Allowed
    times: Times
    is_cut: bool = False
    _held: list[socket.socket] = field(default_factory=list)
    _turn: threading.Condition = field(default_factory=threading.Condition)
    _is_over: bool = False
    _until: float = 0.0
    _over: float = 0.0
    _is_begun: bool = False

    @contextmanager
    def cut_in_time(self) -> Iterator[None]:
        # A read's own timeout begins anew with each byte that drips in.
        self._over = time.monotonic() + self.times.whole_s
        self._until = min(self._over, time.monotonic() + (self.times.answer_s or self.times.whole_s))
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        try:
            yield
        finally:
            with self._turn:
                self._is_over = True
                self._turn.notify()
                while self._held:
                    self._held.pop().close()

    def is_answered(self) -> None:
        """The headers are there; now for the body."""
        self._is_begun = True
        self._wait_until(time.monotonic() + self.times.slow_s if self.times.least_speed else self._over)

    def has_come(self, count: int) -> None:
        """So many bytes of the body: they buy time, but never more than `slow_s` of it."""
        if self.times.least_speed:
            bought = self._until + count / self.times.least_speed
            self._wait_until(min(time.monotonic() + self.times.slow_s, bought))

    def why_cut(self) -> Unanswered:
        """What to tell when it was cut."""
        times = self.times
        if self._is_begun and self._until < self._over:
            return TooSlow(f"less than {times.least_speed / 1000:g} kB a second came for {times.slow_s:g} s")
        return Unanswered(f"no answer within {(not self._is_begun and times.answer_s) or times.whole_s:g} s")

    def _wait_until(self, until: float) -> None:
        with self._turn:
            is_sooner = until < self._until
            self._until = min(until, self._over)
            if is_sooner:
                self._turn.notify()

    def _watch(self) -> None:
        with self._turn:
            while not self._is_over:
                left = self._until - time.monotonic()
                if left <= 0:
                    self._cut()
                    return
                self._turn.wait(left)

    def opened(self, host: str, port: int) -> socket.socket:
        """A connection to an address of that host that may be sent to. Raises Refused, Unanswered."""
        give_up = time.monotonic() + self.times.connect_s
        found = _resolved(host, port, self.times.connect_s)
        whys = [self.allowed.why_not(host, str(address[0])) for *_, address in found]
        if None not in whys:
            raise Refused(whys[0])
        failed: OSError | None = None
        for (family, kind, protocol, _, address), why in zip(found, whys, strict=True):
            if why is None:
                try:
                    return self._connected(socket.socket(family, kind, protocol), host, address, give_up)
                except OSError as error:
                    failed = error
        raise Unanswered(_why_not_connected(failed))

    def _connected(self, end: socket.socket, host: str, address: Any, give_up: float) -> socket.socket:
        try:
            end.settimeout(max(0.01, give_up - time.monotonic()))
            end.connect(address)
            if why := self.allowed.why_not(host, str(end.getpeername()[0])):
                raise Refused(why)
            end.settimeout(self.times.patience_s)
            self._hold(end)
        except BaseException:
            end.close()
            raise
        return end

    def _hold(self, end: socket.socket) -> None:
        with self._turn:
            self._held.append(end.dup())  # TLS takes the socket itself away
            if self.is_cut:
                self._cut()

    def _cut(self) -> None:
        self.is_cut = True
        for end in self._held:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _resolved(host: str, port: int, within: float) -> list[Any]:
    """The host's addresses. A resolver has no time limit of its own that we could set: a thread waits for it."""
    found: Future[list[Any]] = Future()

    def resolve() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, ValueError) as error:
            found.set_exception(error)

    threading.Thread(target=resolve, name="resolver", daemon=True).start()
    try:
        return found.result(within)
    except TimeoutError:
        raise Unanswered("its host is not found in time") from None
    except (OSError, ValueError):
        raise Unanswered("its host is not known") from None


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


def _connection(to: Target, line: _Line, tls: ssl.SSLContext) -> _Plain:
    return _Secure(to.host, to.port, line.opened, tls) if to.is_secure else _Plain(to.host, to.port, line.opened)


@contextmanager
def _told_in_our_words(line: _Line) -> Iterator[None]:
    """Neither the URL nor what the other side says stands in a reason."""
    try:
        yield
    except ssl.SSLCertVerificationError:
        raise Unanswered("its certificate does not hold") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if line.is_cut or (isinstance(error, TimeoutError) and line.times.silent_s is None):
            raise line.why_cut() from None
        if isinstance(error, TimeoutError):
            raise Unanswered(f"no answer within {line.times.patience_s:.3g} s") from None
        if isinstance(error, http.client.IncompleteRead | ConnectionResetError):
            raise CutOff(f"no answer: {type(error).__name__}") from None
        raise Unanswered(f"no answer: {type(error).__name__}") from None


def _why_not_connected(error: OSError | None) -> str:
    return "no connection in time" if isinstance(error, TimeoutError) else f"no connection: {type(error).__name__}"
