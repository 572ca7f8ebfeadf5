"""The transport of `http_client`: requests, connected to checked addresses and bounded by a deadline.

Each exchange has a session and a connection of its own: no connection, cookie or login passes from one host to another.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.hooks import default_hooks
from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from voicequeue.net.address_policy import AddressPolicy
from voicequeue.net.deadline import Deadline, DeadlineSocket
from voicequeue.net.http_types import HttpTimeouts, RequestFailed, Response, Target, TruncatedResponse, UrlNotAllowed

_PIECE = 65_536


@contextmanager
def exchange(
    method: str,
    target: Target,
    headers: Mapping[str, str],
    body: bytes | None,
    policy: AddressPolicy,
    timeouts: HttpTimeouts,
    tls: ssl.SSLContext,
) -> Iterator[Response]:
    """Send a request and give its response; at the end of the block the connection is closed.

    Raises UrlNotAllowed, RequestFailed.
    """
    deadline = Deadline(timeouts)
    with _Session(_CheckedAdapter(target, policy, deadline, tls)) as session:
        with _failures(deadline):
            response = session.send(_prepared(method, target, headers, body), stream=True)
        with response:
            deadline.headers_received()
            yield Response(response.status_code, response.headers, partial(_read, response, deadline))


def _read(response: requests.Response, deadline: Deadline) -> bytes:
    with _failures(deadline):
        piece: bytes = response.raw.read1(_PIECE, decode_content=False)
    deadline.body_received(len(piece))
    return piece


class _Session(requests.Session):
    """A session without settings from the environment (proxies, logins, certificates) that follows no redirect."""

    def __init__(self, adapter: HTTPAdapter) -> None:
        super().__init__()
        self.trust_env = False
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return none: requests would read the whole body of a redirect before the caller decides."""


def _prepared(method: str, target: Target, headers: Mapping[str, str], body: bytes | None) -> requests.PreparedRequest:
    """Return a request whose URL is sent as Target has parsed it; the parser of requests would rewrite its path."""
    prepared = requests.PreparedRequest()
    prepared.method, prepared.url, prepared.hooks = method, target.origin + target.path, default_hooks()
    prepared.prepare_headers({**headers, "Authorization": target.authorization} if target.authorization else headers)
    prepared.prepare_body(body, None)
    return prepared


class _CheckedAdapter(HTTPAdapter):
    """Sends a request to an allowed address of its target, within a deadline."""

    def __init__(self, target: Target, allowed: AddressPolicy, deadline: Deadline, tls: ssl.SSLContext) -> None:
        super().__init__()
        self._target, self._allowed, self._deadline, self._tls = target, allowed, deadline, tls

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Return the response once its headers are received. Timeouts, proxies and certificates are the adapter's."""
        connection = _Connection(self._target, self._allowed, self._deadline, self._tls)
        try:
            connection.request(str(request.method), self._target.path, request.body, request.headers)
            return self.build_response(request, connection.getresponse())
        except BaseException:
            connection.close()
            raise


class _FinalResponse(http.client.HTTPResponse):
    """A response without the interim ones (1xx, such as Early Hints) before it; http.client skips only 100."""

    def begin(self) -> None:
        """Read the status and the headers of the final response."""
        super().begin()
        while 100 <= self.status < 200:
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin()


class _Connection(HTTPConnection):
    """A connection to an allowed address of its target, whose reads and writes end by the deadline."""

    response_class = _FinalResponse

    def __init__(self, target: Target, allowed: AddressPolicy, deadline: Deadline, tls: ssl.SSLContext) -> None:
        super().__init__(target.host, target.port)
        self.default_port = 443 if target.is_secure else 80  # type: ignore[misc]
        self._target, self._allowed, self._deadline, self._tls = target, allowed, deadline, tls

    def connect(self) -> None:
        """Connect, with TLS for the name of the host, not its address. Raises UrlNotAllowed, RequestFailed, OSError."""
        sock = _connected(self._target.host, self._target.port, self._allowed, self._deadline)
        try:
            sock.settimeout(self._deadline.remaining_s())  # limits the handshake as a whole
            if self._target.is_secure:
                sock = self._tls.wrap_socket(sock, server_hostname=self.host)
        except BaseException:
            sock.close()
            raise
        self.sock = DeadlineSocket(sock, self._deadline)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        """Return the response, without the cookies that requests would read and the URLs that urllib3 would log."""
        received = http.client.HTTPConnection.getresponse(self)
        return _Response(
            body=received,
            headers=HTTPHeaderDict(received.headers.items()),
            status=received.status,
            reason=received.reason,
            connection=self,
            preload_content=False,
            decode_content=False,
        )


class _Response(HTTPResponse):
    """A response of the length that http.client reads; urllib3 would raise an error where a header names two."""

    def _init_length(self, request_method: str | None) -> int | None:  # noqa: ARG002  the name is urllib3's
        return self._fp.length if self._fp else None


def _connected(host: str, port: int, allowed: AddressPolicy, deadline: Deadline) -> socket.socket:
    """Return a socket that is connected to an allowed address of the host. Raises UrlNotAllowed, RequestFailed."""
    candidates = _resolved(host, port, deadline.connect_s())
    objections = [allowed.objection(host, str(address[0])) for *_, address in candidates]
    if None not in objections:
        raise UrlNotAllowed(objections[0])
    failure: OSError | None = None
    for (family, kind, protocol, _, address), objection in zip(candidates, objections, strict=True):
        if objection is None:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(deadline.connect_s())
                sock.connect(address)
                if changed := allowed.objection(host, str(sock.getpeername()[0])):
                    raise UrlNotAllowed(changed)
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
        raise RequestFailed("its host name was not resolved in time") from None
    except (OSError, ValueError):
        raise RequestFailed("its host name cannot be resolved") from None


@contextmanager
def _failures(deadline: Deadline) -> Iterator[None]:
    """Raise RequestFailed for errors of the network and of the protocol, without the URL or the server's words."""
    try:
        yield
    except (OSError, http.client.HTTPException, HTTPError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, HTTPError) and error.__cause__ else error
        raise _failure(cause, deadline) from None


def _failure(error: BaseException, deadline: Deadline) -> RequestFailed:
    if isinstance(error, TimeoutError):
        return deadline.exceeded()
    if isinstance(error, ssl.SSLCertVerificationError):
        return RequestFailed("its certificate is not valid")
    is_truncated = isinstance(error, http.client.IncompleteRead | ConnectionResetError)
    return (TruncatedResponse if is_truncated else RequestFailed)(f"no answer: {type(error).__name__}")
