"""Flower as a browser may use it: no other site's page shows it, reads it or changes anything by it.

Flower 2.2 checks none of this where it has no login, and has no setting for it; so its application is replaced by one
that looks at each request first, whichever handler it is for.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from flower import command  # type: ignore[import-untyped]
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, HTTPServerRequest
from tornado.web import OutputTransform, RequestHandler

from voicequeue.auth import web_origins

#: Headers of every answer. Flower's pages have scripts and styles of their own in them.
HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def install(hosts: frozenset[str] | None) -> None:
    """Guard the Flower that this process is about to start.

    It answers to local names and to these `hosts`; with None to any name.
    """
    command.Flower = partial(Guarded, hosts=hosts)


class Guarded(command.Flower):  # type: ignore[misc]
    """Flower's application, which refuses what other sites' pages ask for."""

    def __init__(self, *, hosts: frozenset[str] | None, **options: Any) -> None:
        super().__init__(**options)
        self._hosts = hosts
        self.add_transform(_Headers)

    def find_handler(self, request: HTTPServerRequest, **more: Any) -> HTTPMessageDelegate:
        """Return the handler of this request, or the one that refuses it."""
        why = self._unknown_host(request.headers.get("Host", "")) or web_origins.refusal(
            request.method or "", request.headers
        )
        handler: HTTPMessageDelegate = (
            super().find_handler(request, **more)
            if why is None
            else self.get_handler_delegate(request, _Refused, {"why": why})
        )
        return handler

    def _unknown_host(self, host: str) -> str | None:
        if self._hosts is None or web_origins.is_loopback(host) or web_origins.host_name(host) in self._hosts:
            return None
        return f"Host is {host[:100]!r}: Flower answers to names of this machine and to those in FLOWER_HOSTS"


class _Refused(RequestHandler):
    """Refuses a request, and says why."""

    def initialize(self, why: str) -> None:
        """Take the reason, as Tornado passes it."""
        self._why = why

    def check_xsrf_cookie(self) -> None:
        """Check nothing more."""

    def prepare(self) -> None:
        """Answer."""
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{self._why}\n")


class _Headers(OutputTransform):
    """Puts the headers on an answer; removes those that open it to other sites, and the server's version."""

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Return the answer's beginning, changed."""
        for name in [name for name in headers if name == "Server" or name.startswith("Access-Control-")]:
            del headers[name]
        for name, value in HEADERS.items():
            headers[name] = value
        return super().transform_first_chunk(status_code, headers, chunk, finishing)
