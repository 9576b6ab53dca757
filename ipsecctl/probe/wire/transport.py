"""UDP (RFC 768) and TCP (RFC 9293) headers, TCP options included."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

__all__ = ["ACK", "FIN", "PSH", "RST", "SYN", "TcpSegment", "UdpDatagram", "parse_tcp", "parse_udp"]

# TCP flags
FIN = 0x01
SYN = 0x02
RST = 0x04
PSH = 0x08
ACK = 0x10

_OPTION_END = 0
_OPTION_NOP = 1
_OPTION_MSS = 2

_UDP = Struct("!HHHH")
_TCP = Struct("!HHIIBBHHH")


class UdpDatagram(NamedTuple):
    """A UDP datagram; ``length`` is what its header states, header included."""

    source_port: int
    destination_port: int
    length: int
    payload: bytes


class TcpSegment(NamedTuple):
    """A TCP segment; ``options`` are (kind, value) in their order, without NOP and end-of-list."""

    source_port: int
    destination_port: int
    sequence: int
    acknowledgment: int
    flags: int
    window: int
    options: tuple[tuple[int, bytes], ...]
    payload: bytes

    @property
    def mss(self) -> int | None:
        """The maximum segment size option in bytes, ``None`` when there is none (of the right length)."""
        return next(
            (int.from_bytes(v) for kind, v in self.options if kind == _OPTION_MSS and len(v) == 2), None
        )


def parse_udp(payload: bytes) -> UdpDatagram | None:
    """Read a UDP datagram, whole or cut; ``None`` when its header is not there."""
    if len(payload) < 8:
        return None
    source, destination, length, _ = _UDP.unpack_from(payload)
    # A length below 8 cannot be true; 0 stands for a jumbogram (RFC 2675): then all that is there counts.
    end = length if length >= 8 else len(payload)
    return UdpDatagram(source, destination, length, payload[8:end])


def parse_tcp(payload: bytes) -> TcpSegment | None:
    """Read a TCP segment, whole or cut; ``None`` when its header is not there or cannot be true.

    Options are read as far as they make sense.
    """
    if len(payload) < 20:
        return None
    source, destination, sequence, acknowledgment, offset, flags, window, _, _ = _TCP.unpack_from(payload)
    header = (offset >> 4) * 4
    if header < 20 or len(payload) < header:
        return None
    options = tuple(_options(payload[20:header]))
    return TcpSegment(source, destination, sequence, acknowledgment, flags, window, options, payload[header:])


def _options(data: bytes) -> list[tuple[int, bytes]]:
    options: list[tuple[int, bytes]] = []
    position = 0
    while position < len(data) and data[position] != _OPTION_END:
        kind = data[position]
        if kind == _OPTION_NOP:
            position += 1
            continue
        length = data[position + 1] if position + 1 < len(data) else 0
        if length < 2 or position + length > len(data):
            break
        options.append((kind, data[position + 2 : position + length]))
        position += length
    return options
