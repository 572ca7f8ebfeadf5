"""Callers of a gateway without configured API keys: this machine alone, and only with the local token."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from fastapi import Request

from voicequeue.auth import web_origins
from workers.gateway.problems import Refusal

#: Each says that a proxy passed the request on, for a caller whose address is unknown.
PASSED_ON = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")


class LocalOnly:
    """Refuses requests that do not come from this machine, and every request where strangers could seem to.

    A proxy on this machine may pass requests on that look local: so an address beyond loopback or a public URL
    excludes all, and every caller needs the local token besides.
    """

    def __init__(self, *, address: str, public_url: str | None, has_token: bool) -> None:
        self._closed = list(_closed(address, public_url, has_token))

    @property
    def reason(self) -> str:
        """Why every request is refused; '' where those from this machine are not."""
        return _detail(self._closed) if self._closed else ""

    def check(self, request: Request) -> None:
        """Raise Refusal unless the request comes from this machine."""
        if wrong := self._closed or list(_foreign(request)):
            raise Refusal(403, _detail(wrong), code="local_only")


def _closed(address: str, public_url: str | None, has_token: bool) -> Iterator[str]:
    if not web_origins.is_loopback_name(address):
        yield "the gateway listens on other addresses too (WEB_ADDRESS)"
    if public_url and not web_origins.is_loopback(urlsplit(public_url).netloc.rpartition("@")[2]):
        yield "it has a public URL (VOICEQUEUE_PUBLIC_URL)"
    if not has_token:
        yield "it has no local token (VOICEQUEUE_LOCAL_TOKEN_FILE), which `make up` would give it"


def _foreign(request: Request) -> Iterator[str]:
    # What a proxy passes on says itself where it comes from; only that there is one is sure.
    if any(name in request.headers for name in PASSED_ON):
        yield "a proxy passed this request on"
    elif not web_origins.is_loopback_name(request.client.host if request.client else ""):
        yield "this request comes from another machine"
    if not web_origins.is_loopback(request.headers.get("host", "")):
        yield "it names this machine neither localhost nor 127.0.0.1 (Host)"


def _detail(wrong: list[str]) -> str:
    return (
        "no API key is configured (VOICEQUEUE_API_KEYS), so only this machine is answered; but "
        f"{', and '.join(wrong)}. Make a key with `voicequeue keys new`"
    )
