"""Protection of Flower in browsers: pages of other sites cannot embed it, read it or change anything through it.

Flower 2.2 does not check this without a login and has no setting for it, so its application is replaced by one that
checks each request before any handler.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from flower import command  # type: ignore[import-untyped]
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, HTTPServerRequest
from tornado.web import OutputTransform, RequestHandler

from config.flowerlinks import LinkingLoader
from voicequeue.auth import web_origins

#: The headers of every response. Flower's pages contain inline scripts and styles.
HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def install(hosts: frozenset[str] | None, page_url: str = "") -> None:
    """Protect the Flower that this process starts later. It answers to local names and to `hosts`; None: any name.

    Its tasks link to the job page at `page_url`, if there is one.
    """
    command.Flower = partial(GuardedFlower, hosts=hosts, page_url=page_url)


class GuardedFlower(command.Flower):  # type: ignore[misc]
    """Flower's application, which refuses requests from pages of other sites."""

    def __init__(self, *, hosts: frozenset[str] | None, page_url: str, template_path: str, **options: Any) -> None:
        loader = LinkingLoader(template_path, page_url)
        super().__init__(template_path=template_path, template_loader=loader, **options)
        self._hosts = hosts
        self.add_transform(_Headers)

    def find_handler(self, request: HTTPServerRequest, **more: Any) -> HTTPMessageDelegate:
        """Return the handler of this request, or the one that refuses it."""
        reason = self._unknown_host(request.headers.get("Host", "")) or web_origins.origin_refusal(
            request.method or "", request.headers
        )
        handler: HTTPMessageDelegate = (
            super().find_handler(request, **more)
            if reason is None
            else self.get_handler_delegate(request, _RefusalHandler, {"reason": reason})
        )
        return handler

    def _unknown_host(self, host: str) -> str | None:
        if self._hosts is None or web_origins.is_loopback(host) or web_origins.host_name(host) in self._hosts:
            return None
        return f"Host is {host[:100]!r}: Flower answers to names of this machine and to those in FLOWER_ALLOWED_HOSTS"


class _RefusalHandler(RequestHandler):
    """Answers 403 with the reason."""

    def initialize(self, reason: str) -> None:
        """Store the reason that Tornado passes."""
        self._reason_text = reason

    def check_xsrf_cookie(self) -> None:
        """Skip the check: the request is refused anyway."""

    def prepare(self) -> None:
        """Send the response."""
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{self._reason_text}\n")


class _Headers(OutputTransform):
    """Sets the headers of a response; removes those that open it to other sites, and the server's version."""

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Return the start of the response with changed headers."""
        for name in [name for name in headers if name == "Server" or name.startswith("Access-Control-")]:
            del headers[name]
        for name, value in HEADERS.items():
            headers[name] = value
        return super().transform_first_chunk(status_code, headers, chunk, finishing)
