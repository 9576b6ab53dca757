"""Which packets are sent for a tunnel, and what they look like when scapy has made them."""

from dataclasses import replace
from itertools import count

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

from ipsecctl.probe.craft import craft
from ipsecctl.probe.recording import mark
from ipsecctl.probe.traffic import Gap, Kind, Path, Purpose, kinds, paths, size_probe, steady_probes
from ipsecctl.probe.wire import parse_icmp, parse_ip, parse_tcp, parse_udp

TOKEN = bytes(range(16))


def the_path(tunnel, scene, family=4, sender="gw-north") -> Path:
    return next(p for p in paths(tunnel, scene.hosts)[0] if p.family == family and p.sender == sender)


def parsed(probe):
    data = craft(probe, TOKEN)
    assert len(data) == probe.size_bytes
    packet = parse_ip(data)
    assert packet is not None
    assert packet.dont_fragment
    assert packet.source == probe.path.source_address.packed
    assert packet.destination == probe.path.destination_address.packed
    assert mark(TOKEN, probe.serial) in data
    return packet


def test_both_directions_and_families_of_a_flow(world, scene):
    found, gaps = paths(world.tunnel, scene.hosts)
    assert [(p.direction, p.family) for p in found] == [
        ("north -> south", 4),
        ("south -> north", 4),
        ("north -> south", 6),
        ("south -> north", 6),
    ]
    assert gaps == []


def test_a_prefix_without_a_host_is_a_gap(world, scene):
    found, gaps = paths(world.tunnel, scene.hosts[:1])
    assert found == []
    assert gaps[0] == Gap("all", "north -> south", 4, "no host in 10.2.0.0/24 (lan)")
    assert len(gaps) == 4


@pytest.mark.parametrize("family", [4, 6])
def test_small_probes_of_an_open_flow(world, scene, family):
    probes = steady_probes(the_path(world.tunnel, scene, family), count(7))
    arriving = [p.kind for p in probes if p.purpose is Purpose.ARRIVES]
    assert arriving == [Kind.ICMP] * 3 + [Kind.UDP] * 3 + [Kind.TCP] * 3
    assert len({p.serial for p in probes}) == len(probes)
    for probe in probes:
        packet = parsed(probe)
        match probe.kind:
            case Kind.ICMP:
                assert parse_icmp(family, packet.payload).is_echo
            case Kind.UDP:
                assert parse_udp(packet.payload).destination_port == 9
            case Kind.TCP | Kind.SYN_ACK:
                segment = parse_tcp(packet.payload)
                assert segment.mss == {4: 1460, 6: 1440}[family]
                assert segment.flags == (0x12 if probe.kind is Kind.SYN_ACK else 0x02)


@pytest.mark.parametrize("family", [4, 6])
def test_checksums_are_right(world, scene, family):
    layer = IP if family == 4 else IPv6
    for probe in steady_probes(the_path(world.tunnel, scene, family), count(1)):
        data = craft(probe, TOKEN)
        again = layer(data)
        for part in (again, again.payload):
            for name in ("chksum", "cksum"):
                if name in getattr(part, "fields", {}):
                    delattr(part, name)
        assert bytes(again) == data


@pytest.mark.parametrize("size", [576, 1400, 1401, 1500, 9000])
def test_a_probe_has_exactly_its_size(world, scene, size):
    probe = size_probe(the_path(world.tunnel, scene), size, count(1))
    assert probe.kind is Kind.UDP
    assert parsed(probe).total_bytes == size


def test_a_size_that_cannot_hold_the_mark_is_refused(world, scene):
    with pytest.raises(ValueError, match="40 bytes cannot hold 28 bytes of headers"):
        craft(size_probe(the_path(world.tunnel, scene), 40, count(1)), TOKEN)


class TestNarrowedFlows:
    def test_a_tcp_service_is_reached_and_answers_from_its_port(self, tunnel_with, scene):
        tunnel = tunnel_with("[{from: north.lan, to: south.lan, protocol: tcp, port: 104}]")
        there, back = the_path(tunnel, scene), the_path(tunnel, scene, sender="gw-south")
        assert kinds(there) == (Kind.TCP,)
        for probe in steady_probes(there, count(1)):
            assert parse_tcp(parsed(probe).payload).destination_port == 104
        for probe in steady_probes(back, count(1)):
            assert parse_tcp(parsed(probe).payload).source_port == 104
        assert size_probe(there, 1400, count(1)).kind is Kind.TCP

    def test_icmp_is_not_for_ipv6(self, world, scene):
        path = the_path(world.tunnel, scene, family=6)
        assert kinds(replace(path, protocol=58)) == (Kind.ICMP,)
        assert kinds(replace(path, protocol=1)) == ()

    @pytest.mark.parametrize("family", [4, 6])
    def test_any_other_protocol_is_bare_payload(self, tunnel_with, scene, family):
        tunnel = tunnel_with("[{from: north.lan, to: south.lan, protocol: 47}]")
        path = the_path(tunnel, scene, family)
        probes = steady_probes(path, count(1))
        assert [p.kind for p in probes] == [Kind.OTHER] * 3
        assert parsed(probes[0]).protocol == 47
