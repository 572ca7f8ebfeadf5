"""A reverse proxy in front of Flower: one path prefix leads there, every other path gives 404."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

#: Hop-by-hop headers.
_HOP = {"transfer-encoding", "connection", "keep-alive", "content-encoding", "content-length", "date", "server"}


@contextmanager
def behind_a_proxy(prefix: str, port: int) -> Iterator[str]:
    """Yield the URL of a proxy whose `prefix` leads to `port` of this machine."""

    class Forwarder(BaseHTTPRequestHandler):
        """Forwards one request per connection; a browser's preconnect is closed after a second."""

        timeout = 1

        def do_GET(self) -> None:
            self._forward(b"")

        def do_POST(self) -> None:
            self._forward(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def _forward(self, body: bytes) -> None:
            if not self.path.startswith(prefix):
                self.send_error(404)
                return
            url = f"http://127.0.0.1:{port}{self.path}"
            headers = dict(self.headers)
            answer = requests.request(self.command, url, headers=headers, data=body, allow_redirects=False, timeout=10)
            self.send_response_only(answer.status_code)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing: the test reports what is wrong."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Forwarder) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
