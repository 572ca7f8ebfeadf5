"""Recognize requests that a browser sends for a page of another site. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@?#\[\]\\]+)(?::([0-9]{1,5}))?", re.ASCII | re.IGNORECASE)

#: The port that an origin of this scheme does not name.
_PORTS = {"http": 80, "https": 443}

#: What `Sec-Fetch-Site` says of a page's own requests, and of addresses that a person typed.
_OWN = ("same-origin", "none")


def refusal(method: str, headers: Mapping[str, str]) -> str | None:
    """Return why this request must be refused, or None if it may pass.

    A page of another origin, also one of another port of this machine, may link here and do nothing else. Programs
    send neither `Origin` nor `Sec-Fetch-Site`, so they pass. `headers` ignores the case of names.
    """
    host, origin = headers.get("host", ""), headers.get("origin")
    if origin is not None and not is_origin_of(origin, host):
        return (
            f"Origin is {origin[:100]!r}, but this server was called as {host[:100]!r}: pages of other origins are "
            "refused; a reverse proxy must pass on Host as it came"
        )
    site = headers.get("sec-fetch-site", "none")
    if site not in _OWN and not _is_link(method, headers):
        return f"Sec-Fetch-Site is {site[:20]!r}: pages of other origins may link here and do nothing else"
    return None


def is_origin_of(origin: str, host: str) -> bool:
    """Return whether this `Origin` is a page of the server that is called by this `Host`, by whatever scheme.

    Behind a proxy with TLS the server does not know its own scheme.
    """
    scheme, _, place = origin.partition("://")
    port = _PORTS.get(scheme)
    return port is not None and _place(place, port) == _place(host, port) is not None


def is_loopback(host: str) -> bool:
    """Return whether this `Host` is a name or an address by which a machine calls itself."""
    name = host_name(host)
    return name is not None and is_loopback_name(name)


def is_loopback_name(name: str) -> bool:
    """Return whether this name or bare address, without a port, is one by which a machine calls itself."""
    if name == "localhost":
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def host_name(host: str) -> str | None:
    """Return the name or address in a `Host` header, in lower case and without its port; None if it has none."""
    parts = _HOST.fullmatch(host)
    return None if parts is None else parts[1].lower().strip("[]")


def _is_link(method: str, headers: Mapping[str, str]) -> bool:
    goes_there = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return method in ("GET", "HEAD") and goes_there


def _place(host: str, port: int) -> tuple[str, int] | None:
    parts = _HOST.fullmatch(host)
    return None if parts is None else (parts[1].lower(), int(parts[2] or port))
