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
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from urllib.request import getproxies

import aiohttp
import certifi
import uvloop
from yarl import URL

from tasks.musicapi.errors import AmbiguousFailure, ConnectionFailed

T = TypeVar("T")

#: The environment variables that name a CA bundle, by precedence.
CA_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

#: Seconds that requests in flight may take to fail when the transport is closed.
CLOSE_S = 1.0

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

    `connect_s` limits opening a connection, `answer_s` each wait for data, and their sum the whole request. Times are
    in seconds.
    """

    def __init__(self, endpoint: Endpoint, *, connect_s: float, answer_s: float) -> None:
        self._endpoint = endpoint
        # Over a TLS tunnel the proxy login goes into CONNECT only.
        self._proxy_headers = endpoint.proxy_headers if endpoint.ssl_context is None else {}
        self._timeout = aiohttp.ClientTimeout(total=connect_s + answer_s, connect=connect_s, sock_read=answer_s)
        self._loop = uvloop.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._thread.start()
        self._session = self.run(self._open_session()).result()

    def close(self) -> None:
        """Close the connections and stop the thread; requests in flight fail."""
        self.run(self._close_session()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the transport's thread and return its future."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call a function on the transport's thread; its result is discarded."""
        self._loop.call_soon_threadsafe(callback, *args)

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> HttpResponse:
        """Send one request and return its response. Must run on the transport's thread.

        Raises ConnectionFailed only where the request cannot have been sent, and AmbiguousFailure otherwise: it may
        have been charged.
        """
        try:
            async with self._session.request(
                method,
                URL(self._endpoint.base_url + path, encoded=True),
                data=body,
                headers={**headers, **self._proxy_headers},
                allow_redirects=False,
                proxy=self._endpoint.proxy,
                proxy_headers=self._endpoint.proxy_headers,
            ) as response:
                return HttpResponse(response.status, response.headers, await _read_body(response))
        except _ConnectError as error:
            raise ConnectionFailed(error.reason) from None
        except TimeoutError:
            raise AmbiguousFailure("no answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise AmbiguousFailure("the connection was lost") from None

    async def _close_session(self) -> None:
        """Close the session, and give the requests in flight the time to report that their connection is closed."""
        await self._session.close()
        if requests := asyncio.all_tasks() - {asyncio.current_task()}:
            _, unfinished = await asyncio.wait(requests, timeout=CLOSE_S)
            for request in unfinished:
                request.cancel()

    async def _open_session(self) -> aiohttp.ClientSession:
        # The session has no default headers: it would send them to a proxy too, and they contain the key.
        return aiohttp.ClientSession(
            connector=_Connector(limit=0, ssl=self._endpoint.ssl_context or True),
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
        )


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    """Return the complete body, at most BODY_MAX bytes. A truncated body raises an error."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > BODY_MAX:
            raise AmbiguousFailure("the answer is too large")
    return bytes(body)


class _ConnectError(aiohttp.ClientConnectionError):
    """The connection, its TLS handshake or its proxy tunnel failed: nothing was sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Connector(aiohttp.TCPConnector):
    async def connect(self, *args: Any, **kwargs: Any) -> Any:
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
