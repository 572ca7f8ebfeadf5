"""Where requests may go that somebody else has named: never into one's own network."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicequeue.net.address_policy import Allowed

NOBODY = Allowed.of("", setting="THE_SETTING")

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"]

#: By the kind of address that a refusal names.
REFUSED = {
    "a loopback address": ["127.0.0.1", "127.255.255.254", "::1"],
    "an unspecified address": ["0.0.0.0", "::"],
    "a link-local address": ["169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "febf::1"],
    "a multicast address": ["224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1"],
    "a private address": [
        "10.0.0.1", "172.16.0.1", "172.31.255.254", "192.168.1.1", "0.1.2.3", "192.0.2.1", "198.51.100.7",
        "203.0.113.9", "198.18.0.1", "240.0.0.1", "255.255.255.255", "fc00::1", "fd12:3456::1", "2001:db8::1",
    ],
    "an address that is not public": [
        "100.64.0.1", "100.127.255.254", "192.88.99.1", "fec0::1", "::127.0.0.1", "::8.8.8.8", "::ffff:0:127.0.0.1",
        "4000::1", "e000::1",
    ],
}  # fmt: skip

#: IPv6 that leads to 127.0.0.1, 10.0.0.1, 169.254.169.254 or 100.64.0.1 in the end.
CARRIED = [
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::ffff:100.64.0.1",
    "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::100.64.0.1", "64:ff9b:1::10.0.0.1",
    "2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::", "2002:6440:1::",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo, 127.0.0.1
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_sent_to(address: str) -> None:
    """There is no reason against it, whatever the host is called."""
    assert NOBODY.why_not("hooks.example", address) is None
    assert NOBODY.why_not("localhost", address) is None


@pytest.mark.parametrize(("kind", "address"), [(kind, each) for kind, found in REFUSED.items() for each in found])
def test_any_other_is_refused_with_its_kind_and_what_would_allow_it(kind: str, address: str) -> None:
    """The refusal tells neither the host nor the address."""
    why = NOBODY.why_not("hooks.example", address)

    how = " by its address" if kind == "a link-local address" else ""  # where clouds serve their credentials
    assert why == f"its host leads to {kind}, which THE_SETTING does not name{how}"


@pytest.mark.parametrize("address", CARRIED)
def test_ipv6_that_carries_ipv4_is_judged_by_where_it_leads(address: str) -> None:
    """Mapped, translated (NAT64), 6to4 and Teredo."""
    assert NOBODY.why_not("hooks.example", address) is not None


@pytest.mark.parametrize("address", ["::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_ipv6_that_carries_public_ipv4_may_be_sent_to(address: str) -> None:
    """Networks without IPv4 reach it in this way alone."""
    assert NOBODY.why_not("hooks.example", address) is None


@given(st.ip_addresses(v=4))
def test_ipv4_is_never_judged_more_kindly_in_the_clothes_of_ipv6(address: IPv4Address) -> None:
    """Whatever the address is."""
    plain = NOBODY.why_not("h", str(address))
    carried = int(address)
    for clothes in (0xFFFF << 32, 0x64FF9B << 96, 0x2002 << 112):
        shift = 80 if clothes == 0x2002 << 112 else 0
        dressed = NOBODY.why_not("h", str(IPv6Address(clothes | carried << shift)))
        assert plain is None or dressed is not None


@given(st.ip_addresses())
def test_everything_that_is_not_global_is_refused(address: IPv4Address | IPv6Address) -> None:
    """At least what Python itself knows not to be public."""
    if not address.is_global:
        carried = isinstance(address, IPv6Address) and address.ipv4_mapped
        assert carried or NOBODY.why_not("h", str(address)) is not None


def test_what_is_allowed_is_a_name_an_address_or_a_network() -> None:
    """Separated by commas or spaces; names in any case, with or without the dot at the end."""
    allowed = Allowed.of("Hooks.Inner.Example, 10.1.0.0/16 192.168.7.7,fd00::/8 [::1]", setting="S")

    for host, address in {
        "hooks.inner.example": "10.9.9.9",
        "HOOKS.inner.example.": "127.0.0.1",
        "a": "10.1.255.1",
        "b": "192.168.7.7",
        "c": "fd12::1",
        "d": "::1",
        "e": "::ffff:10.1.2.3",
    }.items():
        assert allowed.why_not(host, address) is None
    for host, address in {
        "inner.example": "10.9.9.9",
        "x.hooks.inner.example": "10.9.9.9",
        "a": "10.2.0.1",
        "b": "192.168.7.8",
        "d": "127.0.0.1",
    }.items():
        assert allowed.why_not(host, address) is not None
