"""The address policy keeps requests to URLs of others out of the operator's own network."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicequeue.net.address_policy import AddressPolicy

NONE_ALLOWED = AddressPolicy.parse("", setting="THE_SETTING")

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"]

#: Addresses by the kind that the refusal names.
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

#: IPv6 addresses that carry 127.0.0.1, 10.0.0.1, 169.254.169.254 or 100.64.0.1.
CARRIED = [
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::ffff:100.64.0.1",
    "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::100.64.0.1", "64:ff9b:1::10.0.0.1",
    "2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::", "2002:6440:1::",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo, 127.0.0.1
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_sent_to(address: str) -> None:
    """The name of the host does not matter."""
    assert NONE_ALLOWED.objection("hooks.example", address) is None
    assert NONE_ALLOWED.objection("localhost", address) is None


@pytest.mark.parametrize(
    ("kind", "address"), [(kind, address) for kind, addresses in REFUSED.items() for address in addresses]
)
def test_any_other_is_refused_with_its_kind_and_what_would_allow_it(kind: str, address: str) -> None:
    """The refusal contains neither the host nor the address."""
    reason = NONE_ALLOWED.objection("hooks.example", address)

    suffix = " by its address" if kind == "a link-local address" else ""  # where clouds serve their credentials
    assert reason == f"its host resolves to {kind}, which THE_SETTING does not allow{suffix}"


@pytest.mark.parametrize("address", CARRIED)
def test_ipv6_that_carries_ipv4_is_judged_by_where_it_leads(address: str) -> None:
    """Mapped, translated (NAT64), 6to4 and Teredo."""
    assert NONE_ALLOWED.objection("hooks.example", address) is not None


@pytest.mark.parametrize("address", ["::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_ipv6_that_carries_public_ipv4_may_be_sent_to(address: str) -> None:
    """Networks without IPv4 reach it only like this."""
    assert NONE_ALLOWED.objection("hooks.example", address) is None


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_gains_nothing_by_being_carried_in_ipv6(address: IPv4Address) -> None:
    """This holds for every IPv4 address."""
    plain = NONE_ALLOWED.objection("h", str(address))
    carried = int(address)
    for prefix in (0xFFFF << 32, 0x64FF9B << 96, 0x2002 << 112):
        shift = 80 if prefix == 0x2002 << 112 else 0
        wrapped = NONE_ALLOWED.objection("h", str(IPv6Address(prefix | carried << shift)))
        assert plain is None or wrapped is not None


@given(st.ip_addresses())
def test_everything_that_is_not_global_is_refused(address: IPv4Address | IPv6Address) -> None:
    """This includes at least what Python classifies as not global."""
    if not address.is_global:
        carried = isinstance(address, IPv6Address) and address.ipv4_mapped
        assert carried or NONE_ALLOWED.objection("h", str(address)) is not None


def test_names_addresses_and_networks_can_be_allowed() -> None:
    """They are separated by commas or spaces; names ignore case and a trailing dot."""
    allowed = AddressPolicy.parse("Hooks.Inner.Example, 10.1.0.0/16 192.168.7.7,fd00::/8 [::1]", setting="S")

    for host, address in {
        "hooks.inner.example": "10.9.9.9",
        "HOOKS.inner.example.": "127.0.0.1",
        "a": "10.1.255.1",
        "b": "192.168.7.7",
        "c": "fd12::1",
        "d": "::1",
        "e": "::ffff:10.1.2.3",
    }.items():
        assert allowed.objection(host, address) is None
    for host, address in {
        "inner.example": "10.9.9.9",
        "x.hooks.inner.example": "10.9.9.9",
        "a": "10.2.0.1",
        "b": "192.168.7.8",
        "d": "127.0.0.1",
    }.items():
        assert allowed.objection(host, address) is not None
