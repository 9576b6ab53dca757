"""What is on the wire: pure parsers, bytes in and typed values out.

They read what a capture holds, cut or damaged, and never raise on a packet: what cannot be read is ``None``.
Nothing here needs scapy; that is for crafting.
"""

from ipsecctl.probe.wire.esp import Encapsulation, EspPacket, NatT, classify_nat_t, parse_esp
from ipsecctl.probe.wire.icmp import IcmpMessage, parse_icmp
from ipsecctl.probe.wire.ip import IpPacket, parse_ip
from ipsecctl.probe.wire.link import ip_packet
from ipsecctl.probe.wire.pcap import CaptureDamaged, NotACapture, PcapReader, Record, read_pcap
from ipsecctl.probe.wire.transport import TcpSegment, UdpDatagram, parse_tcp, parse_udp

__all__ = [
    "CaptureDamaged",
    "Encapsulation",
    "EspPacket",
    "IcmpMessage",
    "IpPacket",
    "NatT",
    "NotACapture",
    "PcapReader",
    "Record",
    "TcpSegment",
    "UdpDatagram",
    "classify_nat_t",
    "ip_packet",
    "parse_esp",
    "parse_icmp",
    "parse_ip",
    "parse_tcp",
    "parse_udp",
    "read_pcap",
]
