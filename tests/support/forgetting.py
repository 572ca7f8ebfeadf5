"""A proxy in front of Redis that loses connections: it forgets them, as a NAT or a firewall does, and says nothing to
either side; or it closes each, as a balancer does that has no server."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit


class ForgettingProxy:
    """Forwards bytes; after `forget` it swallows those of the connections that are open then, without closing them."""

    def __init__(self, redis_url: str) -> None:
        address = urlsplit(redis_url)
        self._to = (address.hostname or "", address.port or 0)
        self._login = address.netloc.rpartition("@")[0]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._forgotten = threading.Event()
        self._sockets: list[socket.socket] = []
        #: Bytes that were swallowed.
        self.swallowed = 0
        #: Whether it accepts connections only to close them.
        self.closes_all = False
        #: How many it has closed.
        self.closed = 0

    @property
    def url(self) -> str:
        """URL of the proxy, for Redis clients."""
        return f"redis://{self._login}@127.0.0.1:{self._listener.getsockname()[1]}/0"

    def forget(self) -> None:
        """Swallow from now on what the open connections send and receive; new connections work."""
        forgotten, self._forgotten = self._forgotten, threading.Event()
        forgotten.set()

    def close_all(self) -> None:
        """Close the open connections, and each new one until `closes_all` is False again."""
        self.closes_all = True
        sockets, self._sockets = self._sockets, []
        _close(sockets)

    def serve(self) -> None:
        """Serve until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._connect(client, self._forgotten)

    def close(self) -> None:
        """Close all connections."""
        _close([self._listener, *self._sockets])

    def _connect(self, client: socket.socket, forgotten: threading.Event) -> None:
        """Connect a client to Redis, or close its connection."""
        sockets = [client]
        with contextlib.suppress(OSError):
            sockets += [] if self.closes_all else [socket.create_connection(self._to)]
        self._sockets += sockets
        if self.closes_all or len(sockets) == 1:  # perhaps since then
            self.closed += 1
            _close(sockets)
            return
        for source, target in (sockets, reversed(sockets)):
            threading.Thread(target=self._forward, args=(source, target, forgotten), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, forgotten: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(1_000_000):
                if forgotten.is_set():
                    self.swallowed += len(content)
                else:
                    target.sendall(content)
            if not forgotten.is_set():
                target.shutdown(socket.SHUT_RDWR)


def _close(sockets: list[socket.socket]) -> None:
    for open_socket in sockets:
        with contextlib.suppress(OSError):
            open_socket.shutdown(socket.SHUT_RDWR)
        open_socket.close()


@contextlib.contextmanager
def forgetting_proxy(redis_url: str) -> Iterator[ForgettingProxy]:
    """Yield a proxy for this Redis that forgets nothing yet."""
    proxy = ForgettingProxy(redis_url)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
