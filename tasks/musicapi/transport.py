"""HTTP connections to one host, held by a thread with an event loop.

The loop uses about a third of the CPU time that a thread pool would, and receives responses however busy the caller
is. Errors state reliably whether a request can have been sent.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from urllib.request import getproxies

import aiohttp
import certifi
import uvloop
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from tasks.musicapi.errors import AmbiguousFailure, ConnectionFailed

T = TypeVar("T")

#: The environment variables that name a CA bundle, by precedence.
CA_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

#: Seconds that requests in flight may take to fail when the transport is closed.
CLOSE_S = 1.0

#: Seconds within which a request fails whose kept connection was closed meanwhile.
STALE_S = 1.0

#: The number of kept connections of which a usable one is looked for.
KEPT_MAX = 100

#: Maximum size in bytes of a response body, after decompression.
BODY_MAX = 2_000_000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A base URL with the TLS context and the proxy to reach it by.

    `proxy_headers` are sent to the proxy only.
    """

    base_url: str
    ssl_context: ssl.SSLContext | None
    proxy: URL | None
    proxy_headers: Mapping[str, str]

    @classmethod
    def from_environment(cls, base_url: str) -> Endpoint:
        """Return the endpoint with the proxy and CA bundle of the environment, read as `requests` does.

        Raises OSError for a missing CA bundle, ValueError for an unsupported proxy scheme.
        """
        ssl_context = _ssl_context(_ca_bundle()) if base_url.lower().startswith("https:") else None
        if not getproxies():
            return cls(base_url.rstrip("/"), ssl_context, None, {})
        # 13 MB that most workers do not need.
        from requests import Session  # noqa: PLC0415
        from requests.utils import select_proxy  # noqa: PLC0415
        from urllib3.util import make_headers  # noqa: PLC0415

        with Session() as session:
            environment = session.merge_environment_settings(base_url, {}, None, None, None)
        proxy_url = select_proxy(base_url, environment["proxies"])
        if not proxy_url:
            return cls(base_url.rstrip("/"), ssl_context, None, {})
        proxy = URL(proxy_url if "://" in proxy_url else f"http://{proxy_url}")
        if proxy.scheme not in ("http", "https"):
            raise ValueError(f"the proxy URL must begin with http:// or https://, not {proxy.scheme}://")
        headers = make_headers(proxy_basic_auth=f"{proxy.user}:{proxy.password or ''}") if proxy.user else {}
        return cls(base_url.rstrip("/"), ssl_context, proxy.with_user(None), headers)


def _ca_bundle() -> Path:
    """Return the path of the CA certificates, as `requests` reads it from the environment."""
    return Path(next(filter(None, map(os.environ.get, CA_BUNDLE_VARIABLES)), certifi.where()))


@lru_cache(maxsize=1)
def _ssl_context(bundle: Path) -> ssl.SSLContext:
    if bundle.is_dir():
        return ssl.create_default_context(capath=bundle)
    if not bundle.exists():
        raise OSError(f"no TLS CA certificate bundle at {bundle}")
    return ssl.create_default_context(cafile=bundle)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response with its complete body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpTransport:
    """Sends each request once, over pooled connections.

    Each request has the `headers`. `connect_s` limits opening a connection, `answer_s` the time from then until the
    whole response is there. Times are in seconds.
    """

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str], *, connect_s: float, answer_s: float) -> None:
        self._endpoint = endpoint
        # aiohttp rounds times above the threshold up to whole seconds.
        self._connect_timeout = aiohttp.ClientTimeout(connect=connect_s, ceil_threshold=connect_s)
        self._answer_s = answer_s
        self._loop = uvloop.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._thread.start()
        self._connector, self._base = self.run(self._open_connector()).result()
        self._prefix, self._head = self._prepare(headers)

    def close(self) -> None:
        """Close the connections and stop the thread; requests in flight fail."""
        self.run(self._close_connector()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the transport's thread and return its future."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call a function on the transport's thread; its result is discarded."""
        self._loop.call_soon_threadsafe(callback, *args)

    async def send(self, method: str, path: str, body: bytes | None) -> HttpResponse:
        """Send one request, with JSON as its body, and return its response. Must run on the transport's thread.

        Raises ConnectionFailed only where the request cannot have been sent, and AmbiguousFailure otherwise: it may
        have been charged.
        """
        data, started_at = self._request(method, path, body), self._loop.time()
        try:
            try:
                return await self._exchange(data)
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                if method != "GET" or self._loop.time() > started_at + STALE_S:
                    raise
                return await self._exchange(data)
        except _ConnectError as error:
            raise ConnectionFailed(error.reason) from None
        except TimeoutError:
            raise AmbiguousFailure("no answer in time") from None
        except asyncio.CancelledError:
            if not self._connector.closed:
                raise
            raise AmbiguousFailure("the connection was lost") from None
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError):
            raise AmbiguousFailure("the connection was lost") from None

    def _prepare(self, headers: Mapping[str, str]) -> tuple[str, str]:
        """Return what comes before the path of each request and what comes after it."""
        is_forwarded = self._base.proxy is not None and not self._base.is_ssl()
        # Over a TLS tunnel the proxy login goes into CONNECT only.
        login = self._endpoint.proxy_headers if is_forwarded else {}
        own = {name: self._base.headers[name] for name in ("Host", "Accept-Encoding")}
        fields = "".join(f"{name}: {value}\r\n" for name, value in {**own, **headers, **login}.items())
        url = self._base.url.with_user(None)
        prefix = str(url) if is_forwarded else url.raw_path_qs
        return prefix.removesuffix("/"), f" HTTP/1.1\r\n{fields}"

    def _request(self, method: str, path: str, body: bytes | None) -> bytes:
        """Return the bytes of a request."""
        head = f"{method} {self._prefix}{path}{self._head}"
        if body is None:
            return f"{head}\r\n".encode()
        return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    async def _exchange(self, request: bytes) -> HttpResponse:
        """Send a request over a kept or a new connection, and read its response.

        aiohttp keeps the connections and parses responses; its sessions and request objects, which no request here
        needs, would take twice the processor time.
        """
        connection = await self._connect()
        try:
            protocol = connection.protocol
            if protocol is None or (transport := protocol.transport) is None:
                raise aiohttp.ServerDisconnectedError
            with _TimeLimit(self._loop, transport, self._answer_s):
                protocol.set_response_params(read_until_eof=True)
                transport.write(request)
                message, payload = await protocol.read()
                while 100 <= message.code < 200 and message.code != HTTPStatus.SWITCHING_PROTOCOLS:
                    message, payload = await protocol.read()
                body = await _read_body(payload)
            if self._connector.closed:  # a body that ends with its connection would seem complete
                raise aiohttp.ServerDisconnectedError
        except BaseException:
            connection.close()
            raise
        connection.release()
        return HttpResponse(message.code, message.headers, body)

    async def _connect(self) -> aiohttp.connector.Connection:
        """Return a kept or a new connection on which nothing was received.

        Upstream may have sent a response twice, or one that nothing asked for: the next request would read it.
        """
        for _ in range(KEPT_MAX):
            connection = await self._connector.connect(self._base, [], self._connect_timeout)
            if connection.protocol is None or not connection.protocol.should_close:
                return connection
            connection.close()
        raise _ConnectError("no connection")

    async def _close_connector(self) -> None:
        """Close the connections, and give the requests in flight the time to report that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._connector.close()
        if requests := asyncio.all_tasks() - {asyncio.current_task()}:
            _, unfinished = await asyncio.wait(requests, timeout=CLOSE_S)
            for request in unfinished:
                request.cancel()
            if unfinished:
                await asyncio.wait(unfinished, timeout=CLOSE_S)

    async def _open_connector(self) -> tuple[_Connector, aiohttp.ClientRequest]:
        """Return the connector, and the request that says to it where connections lead."""
        url, endpoint = URL(self._endpoint.base_url, encoded=True), self._endpoint
        tls = endpoint.ssl_context or True
        base = aiohttp.ClientRequest("GET", url, loop=self._loop, ssl=tls)
        # aiohttp adds the host, and finds kept connections by these headers.
        to_proxy = CIMultiDict({**endpoint.proxy_headers, "Host": base.headers["Host"]})
        base.update_proxy(endpoint.proxy, None, to_proxy)
        return _Connector(limit=0, ssl=tls), base


class _TimeLimit:
    """Ends its body with TimeoutError after `seconds`, and aborts the connection.

    With `asyncio.timeout`, a request would need a tenth more processor time.
    """

    __slots__ = ("_is_over", "_loop", "_task", "_timer", "_transport")

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, seconds: float) -> None:
        self._loop = loop
        self._transport = transport
        self._task = asyncio.current_task(loop)
        self._is_over = False
        self._timer: asyncio.Handle = loop.call_later(seconds, self._expire)

    def __enter__(self) -> None:
        """Do nothing: the time runs already."""

    def __exit__(self, *error: object) -> None:
        """Stop the timer."""
        self._timer.cancel()
        if self._is_over and self._task is not None and not self._task.uncancel():  # no other wants to cancel it
            raise TimeoutError

    def _expire(self) -> None:
        self._timer = self._loop.call_soon(self._end)  # after the task, if its response has arrived

    def _end(self) -> None:
        self._is_over = True
        self._transport.abort()
        if self._task is not None:
            self._task.cancel()  # after a malformed response, aiohttp does not say that the connection is lost


async def _read_body(payload: aiohttp.StreamReader) -> bytes:
    """Return the complete body, at most BODY_MAX bytes. A truncated body raises an error."""
    body = bytearray()
    while not payload.at_eof():
        body += await payload.readany()
        if len(body) > BODY_MAX:
            raise AmbiguousFailure("the answer is too large")
    return bytes(body)


class _ConnectError(aiohttp.ClientConnectionError):
    """The connection, its TLS handshake or its proxy tunnel failed: nothing was sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Connector(aiohttp.TCPConnector):
    async def connect(self, *args: Any, **kwargs: Any) -> aiohttp.connector.Connection:
        try:
            return await super().connect(*args, **kwargs)
        except (aiohttp.ClientError, OSError) as error:
            raise _ConnectError(_connect_failure(error)) from error


def _connect_failure(error: BaseException) -> str:
    if any(isinstance(cause, ssl.SSLCertVerificationError | ssl.CertificateError) for cause in _causes(error)):
        return "upstream's certificate is invalid"
    return "no connection in time" if isinstance(error, TimeoutError) else "no connection"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and every exception that it wraps."""
    while error is not None:
        yield error
        yield from (wrapped for wrapped in error.args if isinstance(wrapped, BaseException))
        error = error.__cause__
