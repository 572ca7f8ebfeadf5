"""The transport of `http_client`: requests, connected to checked addresses and bounded by a deadline.

Each exchange has a session and a connection of its own: no connection, cookie or login passes from one host to another.
The deadline covers all of it, because every read and write of the socket has the time that is left and no more. A
timeout of the socket alone would start again with each byte.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, BinaryIO

import requests
from requests.adapters import HTTPAdapter
from requests.hooks import default_hooks
from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from voicequeue.net.address_policy import Allowed
from voicequeue.net.http_client import Refused, RequestFailed, Target, Times, TooSlow, TruncatedResponse

_PIECE = 65_536


class Exchange:
    """One request and its response. Use it as a context manager; it closes the connection."""

    def __init__(self, target: Target, allowed: Allowed, times: Times, tls: ssl.SSLContext) -> None:
        self._target = target
        self._deadline = _Deadline(times)
        self._session = _Session(_CheckedAdapter(target, allowed, self._deadline, tls))
        self._response: requests.Response | None = None

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        if self._response is not None:
            self._response.close()
        self._session.close()

    def send(self, method: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, Mapping[str, str]]:
        """Return the status and headers of the response. Raises Refused, RequestFailed."""
        with _failures(self._deadline):
            self._response = self._session.send(_prepared(self._target, method, headers, body), stream=True)
        self._deadline.headers_received()
        return self._response.status_code, self._response.headers

    def read(self) -> bytes:
        """Return the next piece of the body, b"" after the last one. Raises RequestFailed."""
        assert self._response is not None
        with _failures(self._deadline):
            piece: bytes = self._response.raw.read1(_PIECE, decode_content=False)
        self._deadline.body_received(len(piece))
        return piece


class _Deadline:
    """The time that is left for an exchange."""

    def __init__(self, times: Times) -> None:
        self._times = times
        self._has_headers = False
        now = time.monotonic()
        self._end = now + times.whole_s
        self._until = min(self._end, now + (times.answer_s or times.whole_s))
        self._connected_until = min(self._until, now + times.connect_s)

    def connect_s(self) -> float:
        """Return the seconds left for connecting."""
        return max(0.01, self._connected_until - time.monotonic())

    def left_s(self) -> float:
        """Return the seconds that the next read or write may take. Raises TimeoutError when none are left."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left if self._times.silent_s is None else min(left, self._times.silent_s)

    def headers_received(self) -> None:
        """Start the time of the body."""
        self._has_headers = True
        self._until = self._end
        if self._times.least_speed:
            self._until = min(self._end, time.monotonic() + self._times.slow_s)

    def body_received(self, size: int) -> None:
        """Extend the time by what `size` bytes take at the minimum speed, to at most `slow_s` from now."""
        if self._times.least_speed:
            until = min(time.monotonic() + self._times.slow_s, self._until + size / self._times.least_speed)
            self._until = min(self._end, until)

    def exceeded(self) -> RequestFailed:
        """Return the error for a read or write that timed out."""
        times = self._times
        if times.silent_s is not None and time.monotonic() < self._until:
            return RequestFailed(f"no answer within {min(times.whole_s, times.silent_s):.3g} s")
        if self._has_headers and self._until < self._end:
            return TooSlow(f"less than {times.least_speed / 1000:g} kB a second came for {times.slow_s:g} s")
        return RequestFailed(f"no answer within {(not self._has_headers and times.answer_s) or times.whole_s:g} s")


class _Session(requests.Session):
    """A session without settings from the environment (proxies, logins, certificates) that follows no redirect."""

    def __init__(self, adapter: HTTPAdapter) -> None:
        super().__init__()
        self.trust_env = False
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return none: requests would read the whole body of a redirect before the caller decides."""


def _prepared(
    target: Target, method: str, headers: Mapping[str, str], body: bytes | None
) -> requests.PreparedRequest:
    """Return a request whose URL is sent as Target has parsed it; the parser of requests would rewrite its path."""
    prepared = requests.PreparedRequest()
    prepared.method, prepared.url, prepared.hooks = method, target.site + target.path, default_hooks()
    prepared.prepare_headers({**headers, "Authorization": target.login} if target.login else headers)
    prepared.prepare_body(body, None)
    return prepared


class _CheckedAdapter(HTTPAdapter):
    """Sends a request to an allowed address of its target, within a deadline."""

    def __init__(self, target: Target, allowed: Allowed, deadline: _Deadline, tls: ssl.SSLContext) -> None:
        super().__init__()
        self._target, self._allowed, self._deadline, self._tls = target, allowed, deadline, tls

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Return the response once its headers are received. The other arguments of requests do not apply."""
        connection_class = _TlsConnection if self._target.is_secure else _Connection
        connection = connection_class(self._target, self._allowed, self._deadline, self._tls)
        try:
            connection.request(str(request.method), self._target.path, request.body, request.headers)  # type: ignore[arg-type]
            return self.build_response(request, connection.getresponse())
        except BaseException:
            connection.close()
            raise


class _Connection(HTTPConnection):
    """A connection to an allowed address, whose reads and writes end by the deadline."""

    def __init__(self, target: Target, allowed: Allowed, deadline: _Deadline, tls: ssl.SSLContext) -> None:
        super().__init__(target.host, target.port)
        self._target, self._allowed, self._deadline, self._tls = target, allowed, deadline, tls

    def connect(self) -> None:
        """Connect. Raises Refused, RequestFailed, OSError."""
        self.sock = _DeadlineSocket(self._opened(), self._deadline)  # type: ignore[assignment]

    def _opened(self) -> socket.socket:
        return _connected(self._target.host, self._target.port, self._allowed, self._deadline)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        """Return the response, without the cookies that requests would read and the URLs that urllib3 would log."""
        received = http.client.HTTPConnection.getresponse(self)
        return _Response(
            body=received,  # type: ignore[arg-type]
            headers=HTTPHeaderDict(received.headers.items()),
            status=received.status,
            reason=received.reason,
            connection=self,
            preload_content=False,
            decode_content=False,
        )


class _TlsConnection(_Connection):
    """The same with TLS, for the name of the host and not for its address."""

    default_port = 443

    def _opened(self) -> socket.socket:
        plain = super()._opened()
        try:
            plain.settimeout(self._deadline.left_s())  # limits the handshake as a whole
            return self._tls.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


class _Response(HTTPResponse):
    """A response of the length that http.client reads; urllib3 would raise an error where a header names two."""

    def _init_length(self, request_method: str | None) -> int | None:
        return self._fp.length if self._fp else None


class _DeadlineSocket:
    """The part of a socket that http.client uses. Each read and write has the time that is left."""

    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        self._sock, self._deadline = sock, deadline

    def sendall(self, data: bytes) -> None:
        """Send all of `data`. Raises TimeoutError."""
        self._sock.settimeout(self._deadline.left_s())
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> BinaryIO:
        """Return a file that reads from the socket, and keeps it open."""
        return io.BufferedReader(_DeadlineReader(self._sock, self._deadline))  # type: ignore[return-value]

    def close(self) -> None:
        """Close the socket, as soon as no file reads from it."""
        self._sock.close()


class _DeadlineReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        self._sock, self._deadline = sock, deadline
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.left_s())
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


def _connected(host: str, port: int, allowed: Allowed, deadline: _Deadline) -> socket.socket:
    """Return a socket that is connected to an allowed address of the host. Raises Refused, RequestFailed."""
    candidates = _resolved(host, port, deadline.connect_s())
    objections = [allowed.why_not(host, str(address[0])) for *_, address in candidates]
    if None not in objections:
        raise Refused(objections[0])
    failure: OSError | None = None
    for (family, kind, protocol, _, address), objection in zip(candidates, objections, strict=True):
        if objection is None:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(deadline.connect_s())
                sock.connect(address)
                if objection := allowed.why_not(host, str(sock.getpeername()[0])):
                    raise Refused(objection)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
    is_late = isinstance(failure, TimeoutError)
    raise RequestFailed("no connection in time" if is_late else f"no connection: {type(failure).__name__}")


def _resolved(host: str, port: int, timeout_s: float) -> list[Any]:
    """Return the addresses of a host, as getaddrinfo does. It takes no timeout, so it runs in a thread."""
    addresses: Future[list[Any]] = Future()

    def resolve() -> None:
        try:
            addresses.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, ValueError) as error:
            addresses.set_exception(error)

    threading.Thread(target=resolve, name="resolver", daemon=True).start()
    try:
        return addresses.result(timeout_s)
    except TimeoutError:
        raise RequestFailed("its host is not found in time") from None
    except (OSError, ValueError):
        raise RequestFailed("its host is not known") from None


@contextmanager
def _failures(deadline: _Deadline) -> Iterator[None]:
    """Raise RequestFailed for errors of the network and of the protocol, without the URL or the server's words."""
    try:
        yield
    except (OSError, http.client.HTTPException, HTTPError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, HTTPError) and error.__cause__ else error
        raise _failure(cause, deadline) from None


def _failure(error: BaseException, deadline: _Deadline) -> RequestFailed:
    if isinstance(error, TimeoutError):
        return deadline.exceeded()
    if isinstance(error, ssl.SSLCertVerificationError):
        return RequestFailed("its certificate does not hold")
    is_truncated = isinstance(error, http.client.IncompleteRead | ConnectionResetError)
    return (TruncatedResponse if is_truncated else RequestFailed)(f"no answer: {type(error).__name__}")
