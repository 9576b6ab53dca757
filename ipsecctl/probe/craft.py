"""Probes as packets, made by scapy.

scapy takes half a second to import: nothing but the functions that send imports this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import scapy.interfaces  # noqa: F401 - it makes conf.ifaces
from scapy.config import conf

# Addresses are ours to choose: routes and interfaces of this machine, slow to read where it has many, do not
# matter.
conf.route_autoload = False
conf.route6_autoload = False
conf.ifaces.reload = lambda: None  # type: ignore[method-assign]

from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402 - after the settings above
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6  # noqa: E402
from scapy.packet import Raw  # noqa: E402

from ipsecctl.probe.recording import mark  # noqa: E402
from ipsecctl.probe.traffic import OFFERED_MSS, Kind, Probe  # noqa: E402

__all__ = ["craft"]

_DISCARD_PORT = 9  # RFC 863: made for traffic that nobody reads
_EPHEMERAL = (49152, 16384)  # first and number of the dynamic ports, RFC 6335 section 6
_FILLER = b"ipsecctl probe. "


def craft(probe: Probe, token: bytes) -> bytes:
    """Return the packet of a probe, headers included, exactly ``size_bytes`` long and with DF set.

    Raises ``ValueError`` when the size does not hold headers and mark.
    """
    headers = _ip(probe) / _upper(probe)
    room = probe.size_bytes - len(headers)
    marked = mark(token, probe.serial)
    if room < len(marked):
        raise ValueError(f"{probe.size_bytes} bytes cannot hold {len(headers)} bytes of headers and the mark")
    padding = (_FILLER * (room // len(_FILLER) + 1))[: room - len(marked)]
    return bytes(headers / Raw(marked + padding))


def _ip(probe: Probe) -> Any:
    """Return the IP header; scapy fills in the protocol where the payload tells it."""
    source, destination = str(probe.path.source_address), str(probe.path.destination_address)
    # An identification of 0 is what the kernel would replace.
    ident = probe.serial % 0xFFFF + 1
    header: Any = (
        IPv6(src=source, dst=destination)
        if probe.path.family == 6
        else IP(src=source, dst=destination, flags="DF", id=ident)
    )
    if probe.kind is Kind.OTHER:
        header.setfieldval("proto" if probe.path.family == 4 else "nh", probe.path.protocol)
    return header


def _upper(probe: Probe) -> Any:
    make: Callable[[Probe], Any] = {
        Kind.ICMP: _echo,
        Kind.UDP: _datagram,
        Kind.TCP: _segment,
        Kind.SYN_ACK: _segment,
        Kind.OTHER: lambda _: Raw(b""),
    }[probe.kind]
    return make(probe)


def _echo(probe: Probe) -> Any:
    request = ICMPv6EchoRequest if probe.path.family == 6 else ICMP
    return request(id=probe.serial >> 16 & 0xFFFF, seq=probe.serial & 0xFFFF)


def _datagram(probe: Probe) -> Any:
    source, destination = _ports(probe)
    return UDP(sport=source, dport=destination)


def _segment(probe: Probe) -> Any:
    source, destination = _ports(probe)
    if (
        probe.kind is Kind.SYN_ACK
        and probe.path.source_ports is None
        and probe.path.destination_ports is None
    ):
        source, destination = destination, source  # an answer comes from the service
    return TCP(
        sport=source,
        dport=destination,
        flags="SA" if probe.kind is Kind.SYN_ACK else "S",
        seq=probe.serial,
        ack=1 if probe.kind is Kind.SYN_ACK else 0,
        options=[("MSS", OFFERED_MSS[probe.path.family])],
    )


def _ports(probe: Probe) -> tuple[int, int]:
    """Return the flow's own ports where it has some, so that its selectors match; else our own."""
    path = probe.path
    first, number = _EPHEMERAL
    own = first + probe.serial % number
    source = path.source_ports[0] if path.source_ports else own
    if path.destination_ports:
        return source, path.destination_ports[0]
    return source, own if path.source_ports else _DISCARD_PORT
