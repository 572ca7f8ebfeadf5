"""Access without configured API keys: from this machine only, with the local token."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from fastapi import Request

from voicequeue.auth import web_origins
from workers.gateway.problems import ProblemError

#: Headers that show that a proxy forwarded the request, whose client is then unknown.
PROXY_HEADERS = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")


class LocalAccess:
    """Refuses requests from other machines, and every request if those could look local.

    A proxy on this machine may forward requests that look local. So an address other than loopback, or a public URL,
    closes the gateway; and every caller needs the local token as well.
    """

    def __init__(self, *, address: str, public_url: str | None, has_token: bool) -> None:
        self._closed = list(_open_settings(address, public_url, has_token))

    @property
    def closed_reason(self) -> str:
        """Reason for which every request is refused; '' if requests from this machine are accepted."""
        return _detail(self._closed) if self._closed else ""

    def check(self, request: Request) -> None:
        """Raise Refusal unless the request comes from this machine."""
        if reasons := self._closed or list(_foreign(request)):
            raise ProblemError(403, _detail(reasons), code="local_only")


def _open_settings(address: str, public_url: str | None, has_token: bool) -> Iterator[str]:
    if not web_origins.is_loopback_name(address):
        yield "the gateway listens on other addresses too (WEB_ADDRESS)"
    if public_url and not web_origins.is_loopback(urlsplit(public_url).netloc.rpartition("@")[2]):
        yield "it has a public URL (VOICEQUEUE_PUBLIC_URL)"
    if not has_token:
        yield "it has no local token (VOICEQUEUE_LOCAL_TOKEN_FILE), which `make up` creates"


def _foreign(request: Request) -> Iterator[str]:
    # A forwarded address can be forged; only the presence of a proxy is certain.
    if any(name in request.headers for name in PROXY_HEADERS):
        yield "a proxy forwarded this request"
    elif not web_origins.is_loopback_name(request.client.host if request.client else ""):
        yield "this request comes from another machine"
    if not web_origins.is_loopback(request.headers.get("host", "")):
        yield "its Host is neither localhost nor a loopback address (Host)"


def _detail(reasons: list[str]) -> str:
    return (
        "No API key is configured (VOICEQUEUE_API_KEYS), so only requests from this machine are accepted; but "
        f"{', and '.join(reasons)}. Create a key with `voicequeue keys new`."
    )
