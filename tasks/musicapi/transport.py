"""The connections to one host: a thread of their own holds them all, and tells for certain whether a request can
have left.

One event loop does what many threads would, for a third of the processor time, and hears of an answer however busy
or blocked the caller is.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import aiohttp
import uvloop
from requests import Session
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy
from urllib3.util import make_headers
from yarl import URL

from tasks.musicapi.errors import NoAnswer, NoConnection

T = TypeVar("T")

#: An answer larger than this (bytes, unpacked) is not the contract's.
BODY_MAX = 2_000_000


@dataclass(frozen=True, slots=True)
class Route:
    """How a host is reached, as the environment says it in the way that `requests` understands it."""

    root: str
    tls: ssl.SSLContext | None
    proxy: URL | None
    #: For the proxy alone.
    proxy_login: Mapping[str, str]

    @classmethod
    def to(cls, base_url: str) -> Route:
        """Raises OSError where a certificate bundle is not there, ValueError for a proxy of another kind."""
        with Session() as session:
            told = session.merge_environment_settings(base_url, {}, None, None, None)
        tls = _tls(told["verify"]) if base_url.lower().startswith("https:") else None
        found = select_proxy(base_url, told["proxies"])
        if not found:
            return cls(base_url.rstrip("/"), tls, None, {})
        proxy = URL(found if "://" in found else f"http://{found}")
        if proxy.scheme not in ("http", "https"):
            raise ValueError(f"a proxy is reached by http:// or https://, not by {proxy.scheme}://")
        login = make_headers(proxy_basic_auth=f"{proxy.user}:{proxy.password or ''}") if proxy.user else {}
        return cls(base_url.rstrip("/"), tls, proxy.with_user(None), login)


def _tls(verify: str | bool | None) -> ssl.SSLContext:
    bundle = Path(verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH)
    if bundle.is_dir():
        return ssl.create_default_context(capath=bundle)
    if not bundle.exists():
        raise OSError(f"there is no TLS CA certificate bundle at {bundle}")
    return ssl.create_default_context(cafile=bundle)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the body is whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """Sends requests over kept connections, each once. Times are in seconds: `connect_s` to open a connection,
    `answer_s` for any silence; both together are the most that a request may take, however its answer drips."""

    def __init__(self, route: Route, *, connect_s: float, answer_s: float) -> None:
        self._route = route
        self._plain_login = route.proxy_login if route.tls is None else {}
        self._timeout = aiohttp.ClientTimeout(total=connect_s + answer_s, connect=connect_s, sock_read=answer_s)
        self._loop = uvloop.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._thread.start()
        self._session = self.start(self._open()).result()

    def close(self) -> None:
        """Close the connections; what is on its way is lost."""
        self.start(self._session.close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Let this be done on the wire's thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def soon(self, work: Callable[..., object], *given: Any) -> None:
        """Call this on the wire's thread; nobody hears what it gives."""
        self._loop.call_soon_threadsafe(work, *given)

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """On the wire's thread: send one request and read its whole answer. Raises NoConnection only where the request
        cannot have left, NoAnswer otherwise: everything else may have been charged."""
        try:
            async with self._session.request(
                method,
                URL(self._route.root + path, encoded=True),
                data=body,
                headers={**headers, **self._plain_login},
                allow_redirects=False,
                proxy=self._route.proxy,
                proxy_headers=self._route.proxy_login,
            ) as answer:
                return Answer(answer.status, answer.headers, await _whole(answer))
        except _NotOpened as error:
            raise NoConnection(error.why) from None
        except TimeoutError:
            raise NoAnswer("no answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise NoAnswer("the connection was lost") from None

    async def _open(self) -> aiohttp.ClientSession:
        # Without headers of its own: a session says those to a proxy as well, and the key is none of its business.
        return aiohttp.ClientSession(
            connector=_Connector(limit=0, ssl=self._route.tls or True),
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
        )


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    """The body, within the size allowed. A body cut short is an error, not an answer."""
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > BODY_MAX:
            raise NoAnswer("the answer is too large")
    return bytes(body)


class _NotOpened(aiohttp.ClientConnectionError):
    """The connection could not be opened, its TLS and its proxy's tunnel included: nothing was sent."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class _Connector(aiohttp.TCPConnector):
    async def connect(self, *request: Any, **more: Any) -> Any:
        try:
            return await super().connect(*request, **more)
        except (aiohttp.ClientError, OSError) as error:
            raise _NotOpened(_why(error)) from error


def _why(error: BaseException) -> str:
    if any(isinstance(each, ssl.SSLCertVerificationError | ssl.CertificateError) for each in _causes(error)):
        return "upstream's certificate does not hold"
    return "no connection in time" if isinstance(error, TimeoutError) else "no connection"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and all that it wraps."""
    while error is not None:
        yield error
        yield from (each for each in error.args if isinstance(each, BaseException))
        error = error.__cause__
