"""What a page may link to and load: never its own host, whatever the port. Pure.

Browsers send a cookie to every port of the host that set it, and count all of these as one site.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

from voicequeue.auth.web_origins import host_name

#: Hosts as browsers take them to be: what has escapes, a user or a backslash in it is not read as they read it.
_URL = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?([/?#][^\\\s\x00-\x1f]*)?", re.A | re.I)

#: A last label that makes browsers read the host as an address: 127.1, 0x7f000001.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class Links:
    """The links of pages that were asked for by this `Host`."""

    def __init__(self, host: str) -> None:
        name = host_name(host)
        self._own = None if name is None else _alike(name)

    def away(self, url: str | None) -> str | None:
        """Return the URL if a page may link to it; others are text at most (javascript:, and the page's own host)."""
        return url if url and self._source(url) else None

    def shown(self, url: str | None) -> str | None:
        """Return the URL if a page may show its picture or play its song."""
        source = self._source(url or "")
        return url if source and "[" not in source else None  # a policy can name no address of IPv6

    def policy(self, pictures: Iterable[str | None], songs: Iterable[str | None]) -> str:
        """Return the page's policy: of other hosts it loads these alone, and follows their redirects to no other."""
        images, media = f"'self' {self._sources(pictures)}".strip(), self._sources(songs) or "'none'"
        return (
            f"default-src 'self'; media-src {media}; img-src {images}; "
            "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
        )

    def _sources(self, urls: Iterable[str | None]) -> str:
        return " ".join(dict.fromkeys(self._source(url) or "" for url in urls if url and self.shown(url)))

    def _source(self, url: str) -> str | None:
        """Return the URL's origin; None for the page's own host, and where a browser may read another host than we."""
        parts = _URL.fullmatch(url)
        host = None if parts is None else _alike(parts[2].lower().strip("[]"))
        if parts is None or host is None or self._own is None or host == self._own:
            return None
        return f"{parts[1]}://{parts[2]}{parts[3] or ''}".lower()


def _alike(host: str) -> str | None:
    """Return the one spelling of this host; None for a number that browsers take for some address."""
    try:
        address = ip_address(host.rstrip("."))
    except ValueError:
        name = host.rstrip(".")
        return None if not name or _NUMBER.fullmatch(name.rpartition(".")[2]) else name
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
