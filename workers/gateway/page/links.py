"""The URLs that a page may link to and load: never its own host, on any port. Pure.

Browsers send a cookie to every port of the host that set it, and treat all its ports as one site.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

from voicequeue.auth.web_origins import host_name

#: URLs that browsers parse as we do: no escapes, user names or backslashes.
_URL = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?([/?#][^\\\s\x00-\x1f]*)?", re.A | re.I)

#: Last labels that make browsers parse the host as an IP address: 127.1, 0x7f000001.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class UrlPolicy:
    """Checks the URLs on pages that were requested with this `Host`."""

    def __init__(self, host: str) -> None:
        name = host_name(host)
        self._own = None if name is None else _canonical(name)

    def linkable(self, url: str | None) -> str | None:
        """Return the URL if a page may link to it: not `javascript:`, not the page's own host."""
        return url if url and self._source(url) else None

    def loadable(self, url: str | None) -> str | None:
        """Return the URL if a page may load its image or audio."""
        source = self._source(url or "")
        return url if source and "[" not in source else None  # a policy cannot contain IPv6 addresses

    def policy(self, image_urls: Iterable[str | None], audio_urls: Iterable[str | None]) -> str:
        """Return the page's Content-Security-Policy: only the origins of these URLs, and no redirects to others."""
        images, media = f"'self' {self._sources(image_urls)}".strip(), self._sources(audio_urls) or "'none'"
        return (
            f"default-src 'self'; media-src {media}; img-src {images}; "
            "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
        )

    def _sources(self, urls: Iterable[str | None]) -> str:
        return " ".join(dict.fromkeys(self._source(url) or "" for url in urls if url and self.loadable(url)))

    def _source(self, url: str) -> str | None:
        """Return the URL's origin; None for the page's own host, and if browsers might parse another host."""
        parts = _URL.fullmatch(url)
        host = None if parts is None else _canonical(parts[2].lower().strip("[]"))
        if parts is None or host is None or self._own is None or host == self._own:
            return None
        return f"{parts[1]}://{parts[2]}{parts[3] or ''}".lower()


def _canonical(host: str) -> str | None:
    """Return the canonical spelling of a host; None for numbers that browsers parse as an IP address."""
    try:
        address = ip_address(host.rstrip("."))
    except ValueError:
        name = host.rstrip(".")
        return None if not name or _NUMBER.fullmatch(name.rpartition(".")[2]) else name
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
