"""The policy for addresses that requests may go to: the public network, and what an operator allows. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from voicequeue.net.clouds import Address, Network, service_at

#: The part of IPv6 that is assigned to the public network.
_PUBLIC_6 = IPv6Network("2000::/3")

#: NAT64: the last 32 bits are the IPv4 address that the translator sends to.
_NAT64 = IPv6Network("64:ff9b::/96")

#: ISATAP, under any prefix: the IPv4 address follows these 32 bits, of which two (universal, group) may differ.
_ISATAP, _ISATAP_MASK = 0x00005EFE, 0xFCFFFFFF

#: IPv4 networks that are not public, and that older Pythons do not all recognize.
_NOT_PUBLIC_4 = tuple(
    map(IPv4Network, ("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15"))
)

#: The same for IPv6: addresses for documentation.
_NOT_PUBLIC_6 = IPv6Network("3fff::/20")


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The host names and networks that an operator allows beyond the public network.

    `setting` is the name of the setting that lists them, for error texts.
    """

    setting: str
    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, entries: str, *, setting: str) -> AddressPolicy:
        """Parse names, addresses and CIDRs, separated by commas or spaces."""
        hosts, networks = set(), []
        for entry in entries.replace(",", " ").split():
            try:
                networks.append(ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                hosts.add(_normalized(entry))
        return cls(setting, frozenset(hosts), tuple(networks))

    def allows_name(self, host: str) -> bool:
        """Return whether the operator allows this name."""
        return _normalized(host) in self.hosts

    def objection(self, host: str, address: str) -> str | None:
        """Return why no request is sent to `address`, to which the name `host` resolves; None if it is allowed.

        A service of a cloud is allowed by its own address alone. A name does not suffice, because the owner of its zone
        decides where it points; nor does a wider network, which was allowed for its other addresses.
        """
        destination = ip_address(address)
        forms = {destination, *_carried(destination)}
        objection = next((kind for form in _carried(destination) if (kind := _objection(form))), None)
        services = [service for form in forms if (service := service_at(form)) is not None]
        networks = [network for network in self.networks if any(form in network for form in forms)]
        if services:
            if any(_is_part(network, service) for network in networks for service in services):
                return None
            kind = objection or "an address of a cloud's own services"
            return f"its host resolves to {kind}, which {self.setting} does not allow by its address"
        if objection is None or networks or self.allows_name(host):
            return None
        return f"its host resolves to {objection}, which {self.setting} does not allow"


def _normalized(host: str) -> str:
    return host.rstrip(".").lower()


def _is_part(network: Network, whole: Network) -> bool:
    if isinstance(network, IPv4Network):
        return isinstance(whole, IPv4Network) and network.subnet_of(whole)
    return isinstance(whole, IPv6Network) and network.subnet_of(whole)


def _carried(address: Address) -> Iterator[Address]:
    """Yield the addresses that packets for `address` may reach: IPv6 may carry an IPv4 address."""
    if isinstance(address, IPv4Address):
        yield address
        return
    carried = address.ipv4_mapped or address.sixtofour
    if address.teredo is not None:
        carried = address.teredo[1]
    if address in _NAT64 or (int(address) >> 32) & _ISATAP_MASK == _ISATAP:
        carried = IPv4Address(int(address) & 0xFFFFFFFF)
    if carried is not None:
        yield carried
    if address.ipv4_mapped is None and address not in _NAT64:
        yield address


def _objection(address: Address) -> str | None:
    kinds = {
        "a loopback": address.is_loopback,
        "an unspecified": address.is_unspecified,
        "a link-local": address.is_link_local,
        "a multicast": address.is_multicast,
        "a private": address.is_private,
    }
    for kind, applies in kinds.items():
        if applies:
            return f"{kind} address"
    return None if _is_public(address) else "an address that is not public"


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address):
        return address.is_global and address in _PUBLIC_6 and address not in _NOT_PUBLIC_6
    return address.is_global and not address.is_reserved and not any(address in network for network in _NOT_PUBLIC_4)
