"""Where requests may go: to addresses of the public network, and to what was allowed. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from voicequeue.net.clouds import Address, Network, service_at

#: The part of IPv6 that is given out for the public network.
_PUBLIC_6 = IPv6Network("2000::/3")

#: IPv4 behind a translator: the last 32 bits are where it leads to.
_NAT64 = IPv6Network("64:ff9b::/96")

#: ISATAP, under any prefix: IPv4 behind these 32 bits (less two that say how it was given out).
_ISATAP, _ISATAP_MASK = 0x00005EFE, 0xFCFFFFFF

#: IPv4 networks that lead nowhere public, and that older Pythons do not all know.
_NOT_PUBLIC_4 = tuple(
    map(IPv4Network, ("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15"))
)

#: The same of IPv6: for documentation.
_NOT_PUBLIC_6 = IPv6Network("3fff::/20")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What an operator has allowed beyond the public network: names of hosts, and networks.

    `setting` is what the reader of a refusal would have to change.
    """

    setting: str
    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, entries: str, *, setting: str) -> Allowed:
        """From names, addresses and CIDRs, separated by commas or spaces."""
        hosts, networks = set(), []
        for entry in entries.replace(",", " ").split():
            try:
                networks.append(ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                hosts.add(_name(entry))
        return cls(setting, frozenset(hosts), tuple(networks))

    def why_not(self, host: str, address: str) -> str | None:
        """Return why nothing is sent to that address, which the name `host` led to; None if it may be.

        A cloud's own service is allowed by its address alone: where a name leads to is decided by those who serve the
        name, and a network that contains more was allowed for the sake of the rest.
        """
        found = ip_address(address)
        meant = tuple(_meant(found))
        why = next((why for each in meant if (why := _why_not(each))), None)
        services = [service for each in (found, *meant) if (service := service_at(each)) is not None]
        named = [network for network in self.networks if any(each in network for each in (found, *meant))]
        if services:
            if any(_is_part(network, service) for network in named for service in services):
                return None
            what = why or "an address of a cloud's own services"
            return f"its host leads to {what}, which {self.setting} does not name by its address"
        if why is None or named or _name(host) in self.hosts:
            return None
        return f"its host leads to {why}, which {self.setting} does not name"


def _name(host: str) -> str:
    return host.rstrip(".").lower()


def _is_part(network: Network, of: Network) -> bool:
    if isinstance(network, IPv4Network):
        return isinstance(of, IPv4Network) and network.subnet_of(of)
    return isinstance(of, IPv6Network) and network.subnet_of(of)


def _meant(address: Address) -> Iterator[Address]:
    """Where an address really leads: those of IPv6 may carry one of IPv4."""
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


def _why_not(address: Address) -> str | None:
    kinds = {
        "a loopback": address.is_loopback,
        "an unspecified": address.is_unspecified,
        "a link-local": address.is_link_local,
        "a multicast": address.is_multicast,
        "a private": address.is_private,
    }
    for kind, is_so in kinds.items():
        if is_so:
            return f"{kind} address"
    return None if _is_public(address) else "an address that is not public"


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address):
        return address.is_global and address in _PUBLIC_6 and address not in _NOT_PUBLIC_6
    return address.is_global and not address.is_reserved and not any(address in each for each in _NOT_PUBLIC_4)
