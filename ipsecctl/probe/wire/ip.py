"""IPv4 (RFC 791) and IPv6 (RFC 8200) headers, fragments and extension headers."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

__all__ = ["AH", "ESP", "ICMP", "ICMPV6", "TCP", "UDP", "IpPacket", "parse_ip"]

# IANA protocol numbers
ICMP = 1
TCP = 6
UDP = 17
ESP = 50
AH = 51
ICMPV6 = 58

_FRAGMENT = 44
# Extension headers of the common form: next header, length in 8 bytes beyond the first 8 (RFC 6564).
_EXTENSIONS = frozenset({0, 43, 60, 135, 139, 140})

_IPV4 = Struct("!BBHHHBBH4s4s")
_IPV6 = Struct("!IHBB16s16s")
_IPV6_FRAGMENT = Struct("!BxHI")


class IpPacket(NamedTuple):
    """An IP packet: ``payload`` follows all headers that belong to IP itself, and has no padding of the link.

    ``source`` and ``destination`` are packed addresses of 4 or 16 bytes. ``total_bytes`` is the length that
    the header states; ``payload`` is shorter than it promises when the capture cut the packet.
    ``fragment_offset`` is in bytes. ``protocol`` is the upper layer's; in a fragment with an offset above 0
    the payload is a later part of it and must not be read as its header. IPv6 routers never fragment, so
    ``dont_fragment`` is true there.
    """

    version: int
    source: bytes
    destination: bytes
    protocol: int
    payload: bytes
    total_bytes: int
    hop_limit: int
    traffic_class: int
    identification: int
    fragment_offset: int
    more_fragments: bool
    dont_fragment: bool

    @property
    def is_fragment(self) -> bool:
        return self.more_fragments or self.fragment_offset > 0


def parse_ip(packet: bytes) -> IpPacket | None:
    """Read an IPv4 or IPv6 packet, whole or cut; ``None`` when its headers are missing or cannot be true."""
    if not packet:
        return None
    version = packet[0] >> 4
    if version == 4:
        return _parse_ipv4(packet)
    return _parse_ipv6(packet) if version == 6 else None


def _parse_ipv4(packet: bytes) -> IpPacket | None:
    if len(packet) < 20:
        return None
    first, tos, total, ident, fragment, ttl, protocol, _, source, destination = _IPV4.unpack_from(packet)
    header = (first & 0x0F) * 4
    # A length of 0 is what a capture in the sender's own stack shows before segmentation is offloaded.
    total = total or len(packet)
    if header < 20 or total < header or len(packet) < header:
        return None
    return IpPacket(
        version=4,
        source=source,
        destination=destination,
        protocol=protocol,
        payload=packet[header:total],
        total_bytes=total,
        hop_limit=ttl,
        traffic_class=tos,
        identification=ident,
        fragment_offset=(fragment & 0x1FFF) * 8,
        more_fragments=bool(fragment & 0x2000),
        dont_fragment=bool(fragment & 0x4000),
    )


def _parse_ipv6(packet: bytes) -> IpPacket | None:
    if len(packet) < 40:
        return None
    first, length, protocol, hops, source, destination = _IPV6.unpack_from(packet)
    # A length of 0 with a payload is a jumbogram (RFC 2675), or a capture before segmentation is offloaded.
    total = 40 + length if length else len(packet)
    position, ident, offset, more = 40, 0, 0, False
    while offset == 0:
        if protocol == _FRAGMENT:
            if len(packet) < position + 8:
                return None
            protocol, fragment, ident = _IPV6_FRAGMENT.unpack_from(packet, position)
            offset, more = fragment & 0xFFF8, bool(fragment & 1)
            position += 8
        elif protocol in _EXTENSIONS:
            if len(packet) < position + 2:
                return None
            protocol, position = packet[position], position + 8 + packet[position + 1] * 8
        else:
            break
    if position > total or position > len(packet):
        return None
    return IpPacket(
        version=6,
        source=source,
        destination=destination,
        protocol=protocol,
        payload=packet[position:total],
        total_bytes=total,
        hop_limit=hops,
        traffic_class=first >> 20 & 0xFF,
        identification=ident,
        fragment_offset=offset,
        more_fragments=more,
        dont_fragment=True,
    )
