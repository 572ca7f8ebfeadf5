"""The addresses of the services that clouds offer to their own machines: credentials, agents, internal endpoints.

A request to one of them may return the credentials of the machine. Several are ordinary public addresses by their
number. Add a new one to this list with the name of its cloud.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: Public by their number.
_PUBLIC = (
    "168.63.129.16",  # Azure: the wire server, which gives agents their configuration and certificates, and DNS
    "192.80.8.124",  # Equinix Metal (Packet): metadata.platformequinix.com
    "161.26.0.0/16",  # IBM Cloud: infrastructure services
    "166.8.0.0/14",  # IBM Cloud: service endpoints (166.8 to 166.11)
)

#: Not public, and never what an operator means by allowing a network that contains them.
_INTERNAL = (
    "169.254.169.254",  # metadata of AWS, Azure, Google, Oracle, IBM, DigitalOcean, Hetzner, OpenStack, and most others
    "169.254.169.253",  # AWS: DNS
    "169.254.170.2",  # AWS: credentials of an ECS task
    "169.254.170.23",  # AWS: credentials of an EKS pod
    "169.254.42.42",  # Scaleway
    "169.254.0.23",  # Tencent: metadata.tencentyun.com
    "169.254.0.0/16",  # link-local: all other services
    "100.100.100.200",  # Alibaba
    "192.0.0.192",  # Oracle Cloud Classic
    "fe80::/10",  # link-local: OpenStack (fe80::a9fe:a9fe), Azure's agent
    "fd00:ec2::/32",  # AWS: metadata (::254), credentials of an EKS pod (::23), DNS (::253)
    "fd20:ce::254",  # Google: metadata.google.internal
    "fd00:c1::a9fe:a9fe",  # Oracle
    "fd00:100::100:200",  # Alibaba
    "fd00:42::42",  # Scaleway
    "fd00:a9fe:a9fe::1",  # Akamai (Linode)
)

SERVICES: tuple[Network, ...] = tuple(map(ip_network, (*_PUBLIC, *_INTERNAL)))

#: The services with a single IPv4 address, as numbers.
_SINGLE = frozenset(
    int(network.network_address) for network in SERVICES if network.version == 4 and network.num_addresses == 1
)


def service_at(address: Address) -> Network | None:
    """Return the largest network of a service that contains the address, or None.

    NAT64 may use any prefix of its operator. So an IPv6 address that ends with the IPv4 address of a service counts as
    that service.
    """
    networks = [network for network in SERVICES if network.version == address.version and address in network]
    if not networks and address.version == 6 and int(address) & 0xFFFFFFFF in _SINGLE:
        return IPv6Network(int(address))
    return max(networks, key=lambda network: network.num_addresses, default=None)
