"""Recognize requests that a browser sends on behalf of another site's page. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@?#\[\]\\]+)(?::([0-9]{1,5}))?", re.ASCII | re.IGNORECASE)

#: The default ports, which an origin omits.
_PORTS = {"http": 80, "https": 443}

#: The values of `Sec-Fetch-Site` for a page's own requests, and for addresses typed by a user.
_OWN = ("same-origin", "none")


def origin_refusal(method: str, headers: Mapping[str, str]) -> str | None:
    """Return why this request must be refused, or None if it is allowed.

    A page of another origin, including another port of this machine, may link here and do nothing else. Programs send
    neither `Origin` nor `Sec-Fetch-Site`, so they are allowed. `headers` ignores the case of names.
    """
    host, origin = headers.get("host", ""), headers.get("origin")
    if origin is not None and not is_origin_of(origin, host):
        return (
            f"Origin is {origin[:100]!r}, but this server was called as {host[:100]!r}: pages of other origins are "
            "refused; a reverse proxy must forward Host unchanged"
        )
    site = headers.get("sec-fetch-site", "none")
    if site not in _OWN and not _is_link(method, headers):
        return f"Sec-Fetch-Site is {site[:20]!r}: pages of other origins may link here and do nothing else"
    return None


def is_origin_of(origin: str, host: str) -> bool:
    """Return whether this `Origin` is a page of the server with this `Host`. The scheme is ignored.

    Behind a proxy with TLS the server cannot determine its own scheme.
    """
    scheme, _, site = origin.partition("://")
    port = _PORTS.get(scheme)
    return port is not None and _site(site, port) == _site(host, port) is not None


def is_loopback(host: str) -> bool:
    """Return whether this `Host` is localhost or a loopback address."""
    name = host_name(host)
    return name is not None and is_loopback_name(name)


def is_loopback_name(name: str) -> bool:
    """Return whether this name or bare address, without a port, is localhost or a loopback address."""
    if name == "localhost":
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def host_name(host: str) -> str | None:
    """Return the name or address in a `Host` header, in lower case and without its port; None if it is invalid."""
    parts = _HOST.fullmatch(host)
    return None if parts is None else parts[1].lower().strip("[]")


def _is_link(method: str, headers: Mapping[str, str]) -> bool:
    is_navigation = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return method in ("GET", "HEAD") and is_navigation


def _site(host: str, port: int) -> tuple[str, int] | None:
    parts = _HOST.fullmatch(host)
    return None if parts is None else (parts[1].lower(), int(parts[2] or port))
