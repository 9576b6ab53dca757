"""The wire parsers: against scapy on what it builds, and against damage of every kind."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import ARP, CookedLinux, CookedLinuxV2, Dot1Q, Ether, Loopback
from scapy.packet import Raw
from scapy.utils import inet_pton

from ipsecctl.probe.wire import (
    CaptureDamaged,
    Encapsulation,
    NatT,
    NotACapture,
    PcapReader,
    Record,
    classify_nat_t,
    ip_packet,
    parse_esp,
    parse_icmp,
    parse_ip,
    parse_tcp,
    parse_udp,
    read_pcap,
)

MAC = "02:00:00:00:00:01"  # without one scapy goes looking for it
SYN = bytes(
    IP(src="10.1.0.1", dst="10.2.0.1") / TCP(sport=5, dport=9, options=[("MSS", 1460), ("NOP", None)])
)
ipv4_addresses = st.ip_addresses(v=4).map(str)
ipv6_addresses = st.ip_addresses(v=6).map(str)
ports = st.integers(0, 65535)
payloads = st.binary(max_size=200)


def parse_everything(frame: bytes, link_type: int = 1) -> None:
    """Read a frame with every parser; none of them may raise."""
    packet = ip_packet(link_type, frame)
    parsed = parse_ip(packet) if packet is not None else None
    if parsed is None:
        return
    parse_esp(parsed)
    for message in (parse_tcp(parsed.payload), parse_icmp(4, parsed.payload), parse_icmp(6, parsed.payload)):
        if message is not None and hasattr(message, "next_hop_mtu"):
            assert message.next_hop_mtu is None or message.next_hop_mtu >= 0
    if (datagram := parse_udp(parsed.payload)) is not None:
        classify_nat_t(datagram)


class TestPcap:
    @pytest.mark.parametrize(("order", "magic", "unit"), [
        ("<", 0xA1B2C3D4, 1000), (">", 0xA1B2C3D4, 1000), ("<", 0xA1B23C4D, 1), (">", 0xA1B23C4D, 1),
    ])  # fmt: skip
    def test_either_byte_order_and_unit_of_time(self, pcap, order, magic, unit):
        records = list(read_pcap(pcap(b"one", b"three", order=order, magic=magic)))
        assert records == [
            Record(7 * unit, 1, b"one", 3),
            Record(1_000_000_000 + 7 * unit, 1, b"three", 5),
        ]

    @given(cuts=st.lists(st.integers(0, 200), max_size=8))
    def test_it_reads_the_same_however_the_stream_is_cut(self, cuts):
        whole = capture_of(b"a" * 30, b"", b"bc" * 20)
        reader, records, last = PcapReader(), [], 0
        for cut in [*sorted(cuts), len(whole)]:
            records += reader.feed(whole[last:cut])
            last = max(last, cut)
        assert records == list(read_pcap(whole))
        assert reader.is_open
        assert reader.pending_bytes == 0

    def test_an_unfinished_record_is_pending(self, pcap):
        reader = PcapReader()
        assert reader.feed(pcap(b"whole", b"half")[:-2]) == [Record(7000, 1, b"whole", 5)]
        assert reader.pending_bytes == 18

    def test_the_link_type_is_without_the_bits_about_checksums(self, pcap):
        assert next(iter(read_pcap(pcap(b"x", link_type=0x24000001)))).link_type == 1

    @pytest.mark.parametrize("data", [b"\n\r\r\n0000", b"GIF89a", b"\x00"])
    def test_what_is_not_a_capture(self, data):
        with pytest.raises(NotACapture):
            list(read_pcap(data))

    def test_a_length_that_lies(self, pcap):
        data = pcap(b"good") + struct.pack("<IIII", 1, 1, 1 << 30, 1 << 30)
        with pytest.raises(CaptureDamaged, match="at byte 44: a record that claims 1073741824 bytes"):
            list(read_pcap(data))

    def test_a_frame_cut_by_the_snap_length(self):
        assert Record(0, 1, b"abc", 1500).is_cut
        assert not Record(0, 1, b"abc", 3).is_cut


def capture_of(*frames: bytes) -> bytes:
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    return header + b"".join(struct.pack("<IIII", 1, 0, len(f), len(f)) + f for f in frames)


class TestLink:
    @pytest.mark.parametrize(
        ("link_type", "frame"),
        [
            (1, Ether(src=MAC, dst=MAC) / IP(SYN)),
            (1, Ether(src=MAC, dst=MAC) / Dot1Q(vlan=5) / IP(SYN)),
            (1, Ether(src=MAC, dst=MAC, type=0x88A8) / Dot1Q(vlan=5) / Dot1Q(vlan=6) / IP(SYN)),
            (101, IP(SYN)),
            (12, IP(SYN)),
            (228, IP(SYN)),
            (113, CookedLinux(proto=0x800) / IP(SYN)),
            (276, CookedLinuxV2(proto=0x800) / IP(SYN)),
            (0, Loopback(type=2) / IP(SYN)),
            (108, Raw(b"\x00\x00\x00\x02") / IP(SYN)),
        ],
    )
    def test_the_packet_is_found_in_each_kind_of_frame(self, link_type, frame):
        assert ip_packet(link_type, bytes(frame)) == SYN

    @pytest.mark.parametrize("link_type", [0, 1, 101, 108, 113, 228, 229, 276, 999])
    def test_an_empty_frame_carries_nothing(self, link_type):
        assert ip_packet(link_type, b"") is None

    def test_what_is_not_ip(self):
        assert ip_packet(1, bytes(Ether(src=MAC, dst=MAC) / ARP(hwsrc=MAC, psrc="192.0.2.1"))) is None
        assert ip_packet(147, SYN) is None


class TestIpv4:
    @given(source=ipv4_addresses, destination=ipv4_addresses, protocol=st.integers(0, 255), body=payloads,
           ident=st.integers(0, 65535), ttl=st.integers(0, 255), tos=st.integers(0, 255),
           flags=st.integers(0, 7), offset=st.integers(0, 0x1FFF))  # fmt: skip
    def test_it_agrees_with_scapy(self, source, destination, protocol, body, ident, ttl, tos, flags, offset):
        built = IP(
            src=source, dst=destination, proto=protocol, id=ident, ttl=ttl, tos=tos, flags=flags, frag=offset
        )
        data = bytes(built / Raw(body))
        parsed = parse_ip(data + b"link padding")
        assert parsed is not None
        assert parsed.version == 4
        assert parsed.source == inet_pton(2, source)
        assert parsed.destination == inet_pton(2, destination)
        assert (parsed.protocol, parsed.payload, parsed.total_bytes) == (protocol, body, len(data))
        assert (parsed.identification, parsed.hop_limit, parsed.traffic_class) == (ident, ttl, tos)
        assert (parsed.fragment_offset, parsed.more_fragments) == (offset * 8, bool(flags & 1))
        assert parsed.dont_fragment == bool(flags & 2)

    @given(size=st.integers(20, 60).map(lambda n: n // 4 * 4), body=payloads)
    def test_options_are_skipped(self, size, body):
        header = bytearray(bytes(IP(len=size + len(body), ihl=size // 4))[:20]) + b"\x01" * (size - 20)
        parsed = parse_ip(bytes(header) + body)
        assert parsed is not None
        assert parsed.payload == body

    @pytest.mark.parametrize(
        "data", [b"", b"\x45", b"\x44" + b"\0" * 30, b"\x45\0\0\x05" + b"\0" * 30, b"\x75" * 40]
    )
    def test_headers_that_cannot_be_true(self, data):
        assert parse_ip(data) is None

    def test_a_length_of_zero_means_offloaded_segmentation(self):
        parsed = parse_ip(bytes(IP(len=0) / Raw(b"x" * 3000)))
        assert parsed is not None
        assert parsed.total_bytes == 3020


class TestIpv6:
    @given(source=ipv6_addresses, destination=ipv6_addresses, body=payloads, hops=st.integers(0, 255),
           traffic_class=st.integers(0, 255),
           chain=st.lists(st.sampled_from(["hop", "dest", "routing"]), max_size=4))  # fmt: skip
    def test_it_agrees_with_scapy(self, source, destination, body, hops, traffic_class, chain):
        built = IPv6(src=source, dst=destination, hlim=hops, tc=traffic_class)
        makers = {"hop": IPv6ExtHdrHopByHop, "dest": IPv6ExtHdrDestOpt, "routing": IPv6ExtHdrRouting}
        for name in chain:
            built /= makers[name]()
        data = bytes(built / UDP(sport=1, dport=2) / Raw(body))
        parsed = parse_ip(data + b"link padding")
        assert parsed is not None
        assert parsed.source == inet_pton(10, source)
        assert parsed.destination == inet_pton(10, destination)
        assert (parsed.protocol, parsed.payload[8:], parsed.total_bytes) == (17, body, len(data))
        assert (parsed.hop_limit, parsed.traffic_class) == (hops, traffic_class)
        assert parsed.dont_fragment
        assert not parsed.is_fragment

    def test_fragments(self):
        first = IPv6() / IPv6ExtHdrFragment(id=77, m=1) / UDP(sport=1, dport=2) / Raw(b"x" * 16)
        later = IPv6() / IPv6ExtHdrFragment(id=77, offset=3, nh=17) / Raw(b"y" * 16)
        one, two = parse_ip(bytes(first)), parse_ip(bytes(later))
        assert one is not None
        assert two is not None
        assert (one.protocol, one.fragment_offset, one.more_fragments) == (17, 0, True)
        assert (two.protocol, two.fragment_offset, two.more_fragments) == (17, 24, False)
        assert one.identification == two.identification == 77
        assert two.payload == b"y" * 16

    def test_headers_that_go_on_for_ever_end_with_the_packet(self):
        assert parse_ip(bytes(IPv6(nh=0) / Raw(b"\0" * 800))) is None


class TestTransport:
    @given(source=ports, destination=ports, body=payloads)
    def test_udp_agrees_with_scapy(self, source, destination, body):
        parsed = parse_udp(bytes(UDP(sport=source, dport=destination) / Raw(body)))
        assert parsed == (source, destination, 8 + len(body), body)

    @given(source=ports, destination=ports, flags=st.integers(0, 255), mss=ports, body=payloads,
           window=ports, sequence=st.integers(0, 2**32 - 1), before=st.integers(0, 3))  # fmt: skip
    def test_tcp_agrees_with_scapy(self, source, destination, flags, mss, body, window, sequence, before):
        options = [("NOP", None)] * before + [("MSS", mss), ("SAckOK", b""), ("WScale", 7)]
        built = TCP(
            sport=source, dport=destination, flags=flags, window=window, seq=sequence, options=options
        )
        parsed = parse_tcp(bytes(built / Raw(body)))
        assert parsed is not None
        assert (parsed.source_port, parsed.destination_port) == (source, destination)
        assert (parsed.flags, parsed.window, parsed.sequence) == (flags, window, sequence)
        assert (parsed.mss, parsed.payload) == (mss, body)
        assert [kind for kind, _ in parsed.options] == [2, 4, 3]

    @pytest.mark.parametrize(
        "options", [b"\x02\x00\x05\xb4", b"\x02\x06\x05\xb4", b"\x01\x01\x01\x02", b"\x00\x02\x04\x05"]
    )
    def test_options_that_make_no_sense_end_the_list(self, options):
        segment = bytearray(bytes(TCP(dataofs=6))[:20]) + options
        parsed = parse_tcp(bytes(segment))
        assert parsed is not None
        assert parsed.mss is None

    @pytest.mark.parametrize("data", [b"", b"x" * 19, bytes(TCP(dataofs=4)), bytes(TCP(dataofs=15))])
    def test_tcp_headers_that_cannot_be_true(self, data):
        assert parse_tcp(data) is None


class TestIcmp:
    def test_fragmentation_needed(self):
        data = bytes(ICMP(type=3, code=4, nexthopmtu=1400) / Raw(SYN))
        message = parse_icmp(4, data)
        assert message is not None
        assert (message.next_hop_mtu, message.is_error, message.body) == (1400, True, SYN)

    def test_packet_too_big(self):
        message = parse_icmp(6, bytes(ICMPv6PacketTooBig(mtu=1280) / Raw(SYN)))
        assert message is not None
        assert (message.next_hop_mtu, message.is_error, message.body) == (1280, True, SYN)

    @pytest.mark.parametrize(
        ("version", "built", "error", "echo"),
        [
            (4, ICMP(type=8), False, True),
            (4, ICMP(type=3, code=3), True, False),
            (4, ICMP(type=11), True, False),
            (6, ICMPv6EchoRequest(), False, True),
            (6, ICMPv6DestUnreach(), True, False),
        ],
    )
    def test_other_messages_state_no_mtu(self, version, built, error, echo):
        message = parse_icmp(version, bytes(built / Raw(b"x" * 8)))
        assert message is not None
        assert (message.next_hop_mtu, message.is_error, message.is_echo) == (None, error, echo)


class TestEsp:
    @given(
        spi=st.integers(1, 2**32 - 1),
        sequence=st.integers(0, 2**32 - 1),
        body=st.binary(min_size=8, max_size=99),
    )
    def test_native_and_in_udp(self, spi, sequence, body):
        esp = ESP(spi=spi, seq=sequence) / Raw(body)
        native = parse_esp(parse_ip(bytes(IP() / esp)))
        assert native == (Encapsulation.NATIVE, spi, sequence, 8 + len(body), None)
        in_udp = parse_esp(parse_ip(bytes(IP() / UDP(sport=1025, dport=4500) / esp)))
        assert in_udp == (Encapsulation.UDP, spi, sequence, 8 + len(body), (1025, 4500))
        over_ipv6 = parse_esp(parse_ip(bytes(IPv6() / esp)))
        assert over_ipv6 == (Encapsulation.NATIVE, spi, sequence, 8 + len(body), None)

    @pytest.mark.parametrize(
        ("payload", "kind"),
        [
            (b"\xff", NatT.KEEPALIVE),
            (b"\0\0\0\0" + b"i" * 28, NatT.IKE),
            (b"\xc0\0\0\x01" + b"e" * 28, NatT.ESP),
            (b"\xff\xff", NatT.OTHER),
            (b"", NatT.OTHER),
        ],
    )
    def test_what_port_4500_carries(self, payload, kind):
        datagram = parse_udp(bytes(UDP(sport=4500, dport=4500) / Raw(payload)))
        assert datagram is not None
        assert classify_nat_t(datagram) is kind

    def test_a_keepalive_is_no_less_one_for_ethernets_padding(self):
        frame = (
            bytes(Ether(src=MAC, dst=MAC) / IP() / UDP(sport=4500, dport=4500) / Raw(b"\xff")) + b"\0" * 17
        )
        datagram = parse_udp(parse_ip(ip_packet(1, frame)).payload)
        assert classify_nat_t(datagram) is NatT.KEEPALIVE

    def test_only_the_first_fragment_has_a_header(self):
        parts = fragment(IP() / ESP(spi=0xC0FFEE, seq=1) / Raw(b"\x11" * 1400), 600)
        headers = [parse_esp(parse_ip(bytes(part))) for part in parts]
        assert len(headers) == 3
        assert headers[0].spi == 0xC0FFEE
        assert headers[1:] == [None, None]

    def test_udp_on_other_ports_is_not_looked_into(self):
        assert parse_esp(parse_ip(bytes(IP() / UDP(sport=53, dport=53) / Raw(b"x" * 40)))) is None


ETHERNET = Ether(src=MAC, dst=MAC)
SAMPLES = [
    bytes(frame)
    for frame in (
        ETHERNET / IP(SYN),
        ETHERNET / Dot1Q() / IP() / UDP(sport=4500, dport=4500) / ESP(spi=5, seq=6) / Raw(b"x" * 40),
        ETHERNET / IP() / ICMP(type=3, code=4, nexthopmtu=1400) / Raw(SYN),
        ETHERNET
        / IPv6()
        / IPv6ExtHdrHopByHop()
        / IPv6ExtHdrFragment(m=1)
        / ESP(spi=5, seq=6)
        / Raw(b"x" * 40),
        ETHERNET / IPv6() / ICMPv6PacketTooBig(mtu=1280) / Raw(SYN),
    )
]


@pytest.mark.parametrize("data", SAMPLES, ids=["tcp", "esp-in-udp", "icmp", "esp-in-fragments", "icmpv6"])
def test_a_packet_cut_at_any_byte_is_read_or_refused(data):
    for length in range(len(data)):
        parse_everything(data[:length])
        parse_everything(data[14 : 14 + length], link_type=101)


@settings(max_examples=3 * settings.default.max_examples)
@given(
    sample=st.sampled_from(SAMPLES),
    changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
    link_type=st.sampled_from([0, 1, 101, 113, 276]),
)
def test_damaged_packets_never_raise(sample, changes, link_type):
    data = bytearray(sample)
    for position, value in changes:
        data[position % len(data)] = value
    parse_everything(bytes(data), link_type)


@settings(max_examples=3 * settings.default.max_examples)
@given(st.binary(max_size=300), st.sampled_from([0, 1, 101, 108, 113, 228, 276]))
def test_noise_never_raises(noise, link_type):
    parse_everything(noise, link_type)
    with suppress(NotACapture, CaptureDamaged):
        list(read_pcap(noise))
