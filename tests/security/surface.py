"""All routes of the gateway, as listed by its app; and pages of other origins."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

#: Content types (and none) that a page may send to any site without a preflight.
WITHOUT_PREFLIGHT = (None, "text/plain", "multipart/form-data; boundary=b", "application/x-www-form-urlencoded")

#: Path parameters with few allowed values.
_NAMES = {"stage": "voice", "action": "retry"}


def operations(app: FastAPI) -> list[tuple[str, str]]:
    """Return method and path of every route of the API and of pages, with ids that do not exist."""
    routes = [
        (method, re.sub(r"{(\w+)(:path)?}", lambda name: _NAMES.get(name[1], "x"), context.path_format))
        for context in iter_route_contexts(app.routes)
        for method in sorted(context.methods or ())
        if context.path_format is not None
    ]
    assert {("POST", "/v1/batches/x/jobs"), ("POST", "/do/pause"), ("GET", "/docs"), ("GET", "/healthz")} <= {*routes}
    return routes


def changing(app: FastAPI) -> list[tuple[str, str]]:
    """Return the routes that change something."""
    return [(method, path) for method, path in operations(app) if method not in ("GET", "HEAD", "OPTIONS")]


@contextmanager
def site(html: str = "", *, redirect: str = "", log: list[tuple[str, str]] | None = None) -> Iterator[str]:
    """Serve a page on another port of this machine; yield its URL.

    With `redirect` it redirects there. `log` collects path and cookie of each request.
    """

    class Page(BaseHTTPRequestHandler):
        """Serve the page under every path."""

        def do_GET(self) -> None:
            if log is not None:
                log.append((self.path, self.headers.get("Cookie", "")))
            self.send_response(302 if redirect else 200)
            if redirect:
                self.send_header("Location", redirect)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
