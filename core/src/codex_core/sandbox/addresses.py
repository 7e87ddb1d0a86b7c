"""Which addresses a name may not lead to, unless the address itself is listed.  Pure.

A name is believed only as far as it leads to the public network: otherwise whoever holds the name of
an allowed host could point it at this machine, its neighbours or the cloud's metadata service.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    Address = IPv4Address | IPv6Address
    Network = IPv4Network | IPv6Network

_KINDS = {
    "the unspecified address": "0.0.0.0/8 ::/128",
    "a loopback address": "127.0.0.0/8 ::1/128",
    "an address of a cloud's metadata service": "169.254.169.254/32 169.254.170.2/32 168.63.129.16/32"
    " 100.100.100.200/32 192.0.0.192/32 fd00:ec2::254/128 fd20:ce::254/128",
    "a link-local address": "169.254.0.0/16 fe80::/10",
    "a private address": "10.0.0.0/8 100.64.0.0/10 172.16.0.0/12 192.168.0.0/16 fc00::/7 fec0::/10",
    "a multicast or broadcast address": "224.0.0.0/4 255.255.255.255/32 ff00::/8",
    "a reserved address": "192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15 198.51.100.0/24"
    " 203.0.113.0/24 240.0.0.0/4 64:ff9b:1::/48 ::/96 100::/64 2001:2::/48 2001:10::/28 2001:20::/28 2001:db8::/32"
    " 3fff::/20 5f00::/16",
}
"""The special-purpose registries of IANA (RFC 6890), and the addresses that clouds document; most special first."""
CLOSED: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(block), kind) for kind, blocks in _KINDS.items() for block in blocks.split()
)

_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052
_LOW_32 = 0xFFFF_FFFF


def plain(address: Address) -> Address:
    """Give an IPv4 address that is written as an IPv6 one (``::ffff:192.0.2.1``) as what it is."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def facets(address: Address) -> tuple[Address, ...]:
    """Give *address* and the IPv4 addresses that a translator would take out of it."""
    address = plain(address)
    if isinstance(address, IPv4Address):
        return (address,)
    inner = [address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        inner.append(IPv4Address(int(address) & _LOW_32))
    return (address, *(one for one in inner if one is not None))


def closed(address: Address) -> str:
    """Say what kind of closed address this is, empty for a public one."""
    for facet in facets(address):
        for network, kind in CLOSED:
            if facet.version == network.version and facet in network:
                return kind if facet == plain(address) else f"{kind} in another form ({facet})"
    return ""
