"""A reverse proxy as people put before Flower: one path of its own leads there, everything else is elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

#: They belong to one connection, not to the message.
_HOP = {"transfer-encoding", "connection", "keep-alive", "content-encoding", "content-length", "date", "server"}


@contextmanager
def behind_a_proxy(prefix: str, port: int) -> Iterator[str]:
    """A proxy whose `prefix` leads to that port of this machine; its address."""

    class PassingOn(BaseHTTPRequestHandler):
        """Each connection has one request; a browser's, made ahead without one, is closed after a second."""

        timeout = 1

        def do_GET(self) -> None:
            self._pass_on(b"")

        def do_POST(self) -> None:
            self._pass_on(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def _pass_on(self, body: bytes) -> None:
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
            """Nothing: the test says what was wrong."""

    with ThreadingHTTPServer(("127.0.0.1", 0), PassingOn) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
