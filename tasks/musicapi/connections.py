"""Connections that tell for certain whether a request can have left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from ssl import SSLCertVerificationError
from typing import Any

from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError


class NotOpened(NewConnectionError):
    """The connection could not be opened, its TLS and its proxy's tunnel included: nothing was sent."""


class _Plain(HTTPConnection):
    def connect(self) -> None:
        with _opening(self):
            super().connect()


class _Secure(HTTPSConnection):
    def connect(self) -> None:
        with _opening(self):
            super().connect()


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


_POOLS = {"http": _PlainPool, "https": _SecurePool}


class OneHost(HTTPAdapter):
    """An adapter for one host, which gives the pool of connections to it."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As requests does it, with connections of ours."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> ProxyManager:
        """As requests does it, with connections of ours; a SOCKS proxy needs its own."""
        manager: ProxyManager = super().proxy_manager_for(*args, **kwargs)
        if type(manager) is ProxyManager:
            manager.pool_classes_by_scheme = _POOLS
        return manager

    def look_up(self, request: PreparedRequest, *, verify: Any, cert: Any, proxies: Any) -> Any:
        """The pool. Raises OSError where a certificate file is not there."""
        pool = self.get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)
        self.cert_verify(pool, request.url, verify, cert)  # type: ignore[no-untyped-call]
        return pool


def why_not_opened(error: BaseException) -> str | None:
    """Why no connection came about, in our words; None if there was one, and the request may have left."""
    causes = tuple(_causes(error))
    if not any(isinstance(cause, NewConnectionError) for cause in causes):
        return None
    if any(isinstance(cause, SSLCertVerificationError) for cause in causes):
        return "upstream's certificate does not hold"
    late = any(isinstance(cause, TimeoutError) or type(cause) is ConnectTimeoutError for cause in causes)
    return "no connection in time" if late else "no connection"


@contextmanager
def _opening(connection: HTTPConnection) -> Iterator[None]:
    try:
        yield
    except (HTTPError, HTTPException, OSError) as error:
        raise NotOpened(connection, type(error).__name__) from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it wraps: requests and urllib3 pass causes on as `reason`, argument or cause."""
    yield error
    for inner in (getattr(error, "reason", None), *error.args, error.__cause__):
        if isinstance(inner, BaseException):
            yield from _causes(inner)
