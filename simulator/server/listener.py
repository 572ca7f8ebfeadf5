"""A listener: an application on a port that stays reserved for the lifetime of the process."""

import asyncio
import socket
from typing import cast

from aiohttp import web

#: The backlog of connections to accept, so that a thousand clients can start at once.
_BACKLOG = 2048
#: The time that calls in progress, including hanging ones, get at shutdown (seconds).
_SHUTDOWN_S = 0.1
#: The time until the idle connections of a refusing listener are closed (seconds).
_IDLE_CLOSED_S = 0.01


class Listener:
    """One application on one port."""

    def __init__(self, app: web.Application, host: str, port: int) -> None:
        # With cancellation a handler ends when its client disconnects.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S)
        # Bound and never listening: reserves the port during a refusal, also from becoming a client's local port.
        self._anchor = _bound(host, port)
        self._address: str
        self._port: int
        self._address, self._port = self._anchor.getsockname()[:2]
        self._host = host
        self._outage: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port."""
        return self._port

    @property
    def url(self) -> str:
        """http://host:port, without a slash at the end."""
        return f"http://{self._host}:{self._port}"

    async def open(self) -> None:
        """Start listening. Raises OSError if another process listens on the port."""
        await self._runner.setup()
        await self._listen()

    async def refuse(self, for_s: float) -> None:
        """Refuse all connections for `for_s` seconds (more than 0) from now on, replacing a former refusal.

        Idle connections are closed. Calls in progress may finish; hanging ones are closed before the time is over.
        """
        if self._outage:
            self._outage.cancel()
        for site in list(self._runner.sites):
            await site.stop()
        self._outage = asyncio.create_task(self._refuse_until_over(for_s))
        await asyncio.sleep(_IDLE_CLOSED_S)

    async def close(self) -> None:
        """Stop listening and release the port."""
        if self._outage:
            self._outage.cancel()
        await self._runner.cleanup()
        self._anchor.close()

    async def _listen(self) -> None:
        await web.TCPSite(self._runner, self._address, self._port, backlog=_BACKLOG, reuse_address=True).start()

    async def _refuse_until_over(self, for_s: float) -> None:
        loop, server = asyncio.get_running_loop(), cast(web.Server, self._runner.server)
        back_at = loop.time() + for_s
        server.pre_shutdown()
        # Waits this long for the calls in progress, and again for those that it cancels.
        await server.shutdown(for_s / 2)
        await asyncio.sleep(back_at - loop.time())
        await self._listen()


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    anchor = socket.socket(family, kind, protocol)
    # Allows the listener to bind the same port, but only one socket to listen on it.
    anchor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        anchor.bind(address)
    except OSError as error:
        anchor.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return anchor
