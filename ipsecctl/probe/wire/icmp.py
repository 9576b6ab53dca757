"""ICMP (RFC 792, RFC 1191) and ICMPv6 (RFC 4443): echoes, and errors with the packet that they quote."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

__all__ = ["IcmpMessage", "parse_icmp"]

_HEADER = Struct("!BBH4s")
_DESTINATION_UNREACHABLE = 3
_FRAGMENTATION_NEEDED = 4  # code of the former
# Destination unreachable, source quench, redirect, time exceeded, parameter problem
_ERRORS_V4 = frozenset({3, 4, 5, 11, 12})
_PACKET_TOO_BIG = 2
_ECHOES_V4 = frozenset({0, 8})
_ECHOES_V6 = frozenset({128, 129})


class IcmpMessage(NamedTuple):
    """An ICMP or ICMPv6 message; ``rest`` is the four bytes behind the checksum, ``body`` what follows."""

    version: int
    type: int
    code: int
    rest: bytes
    body: bytes

    @property
    def is_error(self) -> bool:
        """Whether ``body`` quotes the packet that it is about."""
        return self.type in _ERRORS_V4 if self.version == 4 else self.type < 128

    @property
    def is_echo(self) -> bool:
        """Whether this is an echo request or reply."""
        return self.type in (_ECHOES_V4 if self.version == 4 else _ECHOES_V6)

    @property
    def next_hop_mtu(self) -> int | None:
        """The MTU in bytes that "fragmentation needed" or "packet too big" states; ``None`` for any other
        message.

        0 is what routers older than RFC 1191 say: they do not know.
        """
        if self.version == 6:
            return int.from_bytes(self.rest) if self.type == _PACKET_TOO_BIG else None
        if (self.type, self.code) == (_DESTINATION_UNREACHABLE, _FRAGMENTATION_NEEDED):
            return int.from_bytes(self.rest[2:])
        return None


def parse_icmp(version: int, payload: bytes) -> IcmpMessage | None:
    """Read the payload of protocol 1 (``version`` 4) or 58 (6); ``None`` when its header is not there."""
    if len(payload) < 8:
        return None
    kind, code, _, rest = _HEADER.unpack_from(payload)
    return IcmpMessage(version, kind, code, rest, payload[8:])
