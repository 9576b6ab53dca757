"""ESP (RFC 4303), by itself and in UDP (RFC 3948), told apart from IKE and keepalives."""

from __future__ import annotations

from enum import Enum
from struct import Struct
from typing import NamedTuple

from ipsecctl.probe.wire import ip
from ipsecctl.probe.wire.transport import UdpDatagram, parse_udp

__all__ = [
    "IKE_PORT",
    "NAT_T_PORT",
    "Encapsulation",
    "EspPacket",
    "NatT",
    "classify_nat_t",
    "parse_esp",
]

IKE_PORT = 500
NAT_T_PORT = 4500

_ESP = Struct("!II")
_NON_ESP_MARKER = b"\0\0\0\0"
_KEEPALIVE = b"\xff"


class Encapsulation(Enum):
    """How ESP travels: as protocol 50, or in UDP."""

    NATIVE = "protocol 50"
    UDP = "UDP"


class NatT(Enum):
    """What a datagram on the NAT-T port is (RFC 3948 section 2)."""

    ESP = "ESP"
    IKE = "IKE"
    KEEPALIVE = "keepalive"
    OTHER = "other"


class EspPacket(NamedTuple):
    """The clear part of an ESP packet; ``length`` is that of ESP in bytes, from the SPI to the end of the
    ICV.

    ``ports`` are the UDP ports (source, destination), ``None`` without UDP. Of a fragmented packet only the
    first fragment is one of these, with its own length.
    """

    encapsulation: Encapsulation
    spi: int
    sequence: int
    length: int
    ports: tuple[int, int] | None


def classify_nat_t(datagram: UdpDatagram) -> NatT:
    """Say what a datagram to or from port 4500 is."""
    payload = datagram.payload
    if payload == _KEEPALIVE:
        return NatT.KEEPALIVE
    if len(payload) < 8:
        return NatT.OTHER
    return NatT.IKE if payload[:4] == _NON_ESP_MARKER else NatT.ESP


def parse_esp(packet: ip.IpPacket) -> EspPacket | None:
    """Return the ESP header that an IP packet carries, or ``None``.

    A fragment that is not the first has none, whatever its bytes look like.
    """
    if packet.fragment_offset:
        return None
    if packet.protocol == ip.ESP:
        return _header(packet.payload, Encapsulation.NATIVE, None)
    if packet.protocol == ip.UDP:
        datagram = parse_udp(packet.payload)
        if datagram is None or NAT_T_PORT not in datagram[:2] or classify_nat_t(datagram) is not NatT.ESP:
            return None
        return _header(datagram.payload, Encapsulation.UDP, datagram[:2])
    return None


def _header(payload: bytes, how: Encapsulation, ports: tuple[int, int] | None) -> EspPacket | None:
    if len(payload) < 8:
        return None
    spi, sequence = _ESP.unpack_from(payload)
    return EspPacket(how, spi, sequence, len(payload), ports)
