"""Hosts that only a local network knows, and those of examples. Pure: no name is resolved."""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, ip_address
from unicodedata import normalize
from urllib.parse import unquote

from voicequeue.ingest.links.finding import Finding
from voicequeue.net.address_policy import AddressPolicy

#: Last labels of names that the public DNS does not have.
_LOCAL_ZONES = frozenset(
    (
        *(
            "local",
            "localhost",
            "localdomain",
            "localnet",
            "internal",
            "intranet",
            "lan",
            "wlan",
            "home",
            "corp",
            "private",
        ),
        *("test", "invalid", "ip", "nas", "router"),
    )
)
#: Names under public zones that routers answer for themselves.
_ROUTER = re.compile(
    r"(?:.*\.)?(?:(?:fritz|easy|o2|vodafone|congstar|alice)\.box|giga\.cube|routerlogin\.(?:net|com)|"
    r"tplink(?:wifi|modem|repeater)\.net|router\.asus\.com|mywifiext\.net|orbilogin\.com)"
)
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|\d+)(?:\.(?:0x[0-9a-f]*|\d+)){0,3}")
#: Domains that exist for documentation; those under `.example` are left out, because the samples use them.
_EXAMPLE = re.compile(r"(?:.*\.)?(?:example\.(?:com|net|org)|your-?domain\.com|domain\.com)")
_LOOPBACK = "127.0.0.1"


def host_finding(host: str, policy: AddressPolicy) -> Finding | None:
    """Return why upstream gets no recording from a host; None for a public one and for one that the policy allows.

    A local name is doubtful if the policy allows any network, because it may resolve into it.
    """
    name = normalize("NFKC", unquote(host)).rstrip(".").lower()
    if policy.allows_name(name):
        return None
    if _EXAMPLE.fullmatch(name):
        return Finding("placeholder", "is the example of a link: fill in the link of the recording", is_certain=False)
    address = _address(name)
    if address is None and name.rpartition(".")[2] == "localhost":
        address = _LOOPBACK
    if address is not None:
        return _finding(policy) if policy.objection(name, address) else None
    return _finding(policy, is_certain=not policy.networks) if _is_local(name) else None


def _is_local(name: str) -> bool:
    is_known = "." in name and name.rpartition(".")[2] not in _LOCAL_ZONES and not name.endswith(".home.arpa")
    return not is_known or _ROUTER.fullmatch(name) is not None


def _finding(policy: AddressPolicy, *, is_certain: bool = True) -> Finding:
    return Finding(
        "private_host",
        "is on a computer that only your own network reaches: upload the recording to a public address "
        f"(or name its host in {policy.setting})",
        is_certain,
    )


def _address(name: str) -> str | None:
    """Return the address that a host is, in any of the spellings that programs accept."""
    if _NUMERIC.fullmatch(name):
        try:
            return str(IPv4Address(socket.inet_aton(name)))  # also 127.1, 0x7f.1 and 2130706433
        except OSError:
            return None
    try:
        return str(ip_address(name.strip("[]").partition("%")[0]))
    except ValueError:
        return None
