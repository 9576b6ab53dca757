"""The link layer: from a captured frame to the IP packet in it."""

from __future__ import annotations

__all__ = [
    "LINKTYPE_ETHERNET",
    "LINKTYPE_IPV4",
    "LINKTYPE_IPV6",
    "LINKTYPE_LINUX_SLL",
    "LINKTYPE_LINUX_SLL2",
    "LINKTYPE_LOOP",
    "LINKTYPE_NULL",
    "LINKTYPE_RAW",
    "ip_packet",
]

# https://www.tcpdump.org/linktypes.html
LINKTYPE_NULL = 0
LINKTYPE_ETHERNET = 1
LINKTYPE_RAW = 101
LINKTYPE_LOOP = 108
LINKTYPE_LINUX_SLL = 113
LINKTYPE_IPV4 = 228
LINKTYPE_IPV6 = 229
LINKTYPE_LINUX_SLL2 = 276

# Older files and some systems write the DLT number of raw IP where LINKTYPE_RAW belongs.
_RAW_TYPES = frozenset({12, 14, LINKTYPE_RAW, LINKTYPE_IPV4, LINKTYPE_IPV6})
_ETHERTYPES_IP = frozenset({b"\x08\x00", b"\x86\xdd"})
# IEEE 802.1Q, 802.1ad, and the number that QinQ had before it was a standard.
_ETHERTYPES_VLAN = frozenset({b"\x81\x00", b"\x88\xa8", b"\x91\x00"})


def ip_packet(link_type: int, frame: bytes) -> bytes | None:
    """Return the IP packet in a frame, trailing padding included, or ``None`` when it carries something else.

    ``link_type`` is a LINKTYPE number; one that is not known here carries nothing.
    """
    if link_type == LINKTYPE_ETHERNET:
        return _behind_ethertype(frame, 12)
    if link_type in _RAW_TYPES:
        return frame or None
    if link_type == LINKTYPE_LINUX_SLL:
        return _behind_ethertype(frame, 14)
    if link_type == LINKTYPE_LINUX_SLL2:
        return frame[20:] if frame[:2] in _ETHERTYPES_IP and len(frame) > 20 else None
    if link_type in (LINKTYPE_NULL, LINKTYPE_LOOP):
        # The address family's number differs between systems; the version in the packet does not.
        return frame[4:] if len(frame) > 4 and frame[4] >> 4 in (4, 6) else None
    return None


def _behind_ethertype(frame: bytes, position: int) -> bytes | None:
    kind = frame[position : position + 2]
    while kind in _ETHERTYPES_VLAN:
        position += 4
        kind = frame[position : position + 2]
    first = position + 2
    return frame[first:] if kind in _ETHERTYPES_IP and len(frame) > first else None
