"""A way to Redis on which answers get lost: what was asked is done, and nobody hears of it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class LosingWay:
    """A proxy before Redis. It loses the answer to the next command in which `marker` stands, and cuts the line."""

    to: tuple[str, int]
    marker: bytes | None = None
    meanwhile: Callable[[], object] = int
    lost: int = 0
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def url(self) -> str:
        """What a client takes for Redis."""
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def lose_the_answer_to(self, marker: str, meanwhile: Callable[[], object] = int) -> None:
        """From now on, once; `meanwhile` happens before it can be asked again."""
        self.marker, self.meanwhile = marker.encode(), meanwhile

    def run(self) -> None:
        """Serve until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _carry(self, client: socket.socket) -> None:
        """One command at a time, as a client of ours sends them."""
        with client, socket.create_connection(self.to) as redis, contextlib.suppress(OSError):
            while asked := client.recv(1_000_000):
                redis.sendall(asked)
                answer = redis.recv(1_000_000)
                if self.marker is not None and self.marker in asked:
                    self.marker, self.lost = None, self.lost + 1
                    self.meanwhile()
                    return
                client.sendall(answer)


@contextlib.contextmanager
def losing_way(redis_url: str) -> Iterator[LosingWay]:
    """A proxy before this Redis, which so far loses nothing."""
    address = urlsplit(redis_url)
    way = LosingWay((address.hostname or "", address.port or 0))
    carrier = threading.Thread(target=way.run, daemon=True)
    carrier.start()
    try:
        yield way
    finally:
        way.close()
        carrier.join()
