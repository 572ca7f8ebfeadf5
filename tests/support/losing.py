"""A Redis proxy that drops replies: the command is executed, but the client never sees the reply."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class LossyProxy:
    """A proxy that drops the reply to the next command that contains `marker`, and closes that connection."""

    to: tuple[str, int]
    marker: bytes | None = None
    meanwhile: Callable[[], object] = int
    dropped: int = 0
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def url(self) -> str:
        """URL of the proxy, for Redis clients."""
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def drop_reply_to(self, marker: str, meanwhile: Callable[[], object] = int) -> None:
        """Drop the next reply to a command that contains `marker`; call `meanwhile` before the client can retry."""
        self.marker, self.meanwhile = marker.encode(), meanwhile

    def run(self) -> None:
        """Serve until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Stop accepting connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _forward(self, client: socket.socket) -> None:
        """Forward one command at a time, as our clients send them."""
        with client, socket.create_connection(self.to) as redis, contextlib.suppress(OSError):
            while command := client.recv(1_000_000):
                redis.sendall(command)
                reply = redis.recv(1_000_000)
                if self.marker is not None and self.marker in command:
                    self.marker, self.dropped = None, self.dropped + 1
                    self.meanwhile()
                    return
                client.sendall(reply)


@contextlib.contextmanager
def lossy_proxy(redis_url: str) -> Iterator[LossyProxy]:
    """Yield a proxy for this Redis that drops nothing yet."""
    address = urlsplit(redis_url)
    proxy = LossyProxy((address.hostname or "", address.port or 0))
    thread = threading.Thread(target=proxy.run, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
