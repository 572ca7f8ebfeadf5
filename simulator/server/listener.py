"""The listeners: a port that is kept for as long as the process lives, and an application that answers there."""

import asyncio
import socket
from typing import cast

from aiohttp import web

#: Connections that may wait to be accepted, so that a thousand clients can start at once.
_BACKLOG = 2048
#: At the end, calls under way (hanging ones among them) get this long, in seconds.
_FAREWELL_S = 0.1
#: After this many seconds the idle connections of a door that shuts are closed.
_IDLE_CLOSED_S = 0.01


class Listener:
    """One application on one port."""

    def __init__(self, app: web.Application, host: str, port: int) -> None:
        # With cancellation a handler learns that its client is gone, wherever it waits.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_FAREWELL_S)
        # Bound for good and never listening: while the door is shut this keeps the port from anybody else,
        # also from a client's own end of a connection.
        self._anchor = _bound(host, port)
        self._address, self._port = self._anchor.getsockname()[:2]
        self._host = host
        self._outage: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """http://host:port, without a slash at the end."""
        return f"http://{self._host}:{self._port}"

    async def open(self) -> None:
        """Start to listen. Raises OSError when another process listens there."""
        await self._runner.setup()
        await self._listen()

    async def refuse(self, for_s: float) -> None:
        """Refuse all connections from now on, for so many seconds (more than 0). It replaces a former refusal.

        Idle connections are closed; calls under way may end, hanging ones are cut off before the time is over.
        """
        if self._outage:
            self._outage.cancel()
        for site in list(self._runner.sites):
            await site.stop()
        self._outage = asyncio.create_task(self._stay_away(for_s))
        await asyncio.sleep(_IDLE_CLOSED_S)

    async def close(self) -> None:
        """Stop listening and let go of the port."""
        if self._outage:
            self._outage.cancel()
        await self._runner.cleanup()
        self._anchor.close()

    async def _listen(self) -> None:
        await web.TCPSite(self._runner, self._address, self._port, backlog=_BACKLOG, reuse_address=True).start()

    async def _stay_away(self, for_s: float) -> None:
        loop, server = asyncio.get_running_loop(), cast(web.Server, self._runner.server)
        back_at = loop.time() + for_s
        server.pre_shutdown()
        # It waits this long for the calls under way, and then again for those that it cancels.
        await server.shutdown(for_s / 2)
        await asyncio.sleep(back_at - loop.time())
        await self._listen()


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    anchor = socket.socket(family, kind, protocol)
    # Lets the listener bind the same port, but only one listen there.
    anchor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        anchor.bind(address)
    except OSError as error:
        anchor.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return anchor
