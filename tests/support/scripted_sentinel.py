"""A sentinel with TLS: the bundled server has none, so its answers are scripted."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def scripted_sentinel(name: str, host: str, port: int, *, epoch: int = 0) -> Iterator[int]:
    """Yield the port of a server that names this primary, elected in that epoch, as a sentinel does; it accepts any
    login."""
    fields = {"name": name, "ip": host, "port": str(port), "flags": "master", "quorum": "1"}
    fields["config-epoch"] = str(epoch)
    values = [text for pair in fields.items() for text in pair]
    primary = f"*1\r\n*{len(values)}\r\n" + "".join(f"${len(text)}\r\n{text}\r\n" for text in values)

    class Handler(socketserver.StreamRequestHandler):
        """Answers each command."""

        def handle(self) -> None:
            """Read commands until the client has closed the connection."""
            while count := self.rfile.readline().strip():
                command = [self._argument() for _ in range(int(count[1:]))]
                self.wfile.write(primary.encode() if command[0].upper() == b"SENTINEL" else b"+OK\r\n")

        def _argument(self) -> bytes:
            length = int(self.rfile.readline().strip()[1:])
            return self.rfile.read(length + 2)[:-2]

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
