"""Each check holds when all is well, fails on the one thing that is wrong, and says when it cannot tell."""

from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.ipsec import ESP
from scapy.packet import Raw

from ipsecctl.probe import Outcome, WanLink
from ipsecctl.probe.checks import CHECKS, check_path
from ipsecctl.probe.craft import craft
from ipsecctl.probe.recording import Recording
from ipsecctl.probe.traffic import Kind, Purpose, steady_probes
from ipsecctl.probe.wire import Encapsulation

TOKEN = bytes(range(100, 116))  # that of the world
HOLDS, FAILS, COULD_NOT_RUN = Outcome.HOLDS, Outcome.FAILS, Outcome.COULD_NOT_RUN


@pytest.fixture
def other_link(world):
    """The WAN link of a gateway that the tunnel knows nothing of; it is listened to."""
    link = WanLink.between(("gw-other", "c-gw-other", "wan"), ("internet", "c-internet", "to-gw-other"))
    for tap in link.taps:
        world.recordings[tap] = Recording(tap, TOKEN)
        world.recordings[tap].dropped = 0
    return link


def found(world, name, path=None, **changes):
    """The result of one check on the path from north to south."""
    return CHECKS[name].run(path or world.path(), world.evidence(**changes))


def all_is_well(world):
    world.send_steady()
    for path in world.paths():
        world.carry(world.send_size(path, 1400))
        world.too_big(world.send_size(path, 1401), 1400)


@pytest.mark.parametrize("kind", ["world", "nat_world", "foreign_world"])
def test_everything_holds_when_all_is_well(kind, request):
    world = request.getfixturevalue(kind)
    all_is_well(world)
    for path in world.paths():
        checks, spared = check_path(path, world.evidence())
        assert [(c.check, c.outcome) for c in checks] == [(name, HOLDS) for name in CHECKS], checks
        assert not spared


def test_the_far_end_of_somebody_else_is_not_asked_and_that_is_said(foreign_world):
    foreign_world.send_steady()
    result = found(foreign_world, "peers-and-spis")
    assert result.outcome is HOLDS
    assert "gw-north only, the other end is not managed" in result.evidence


class TestArrives:
    def test_lost_packets_are_counted(self, world):
        probes = world.send_steady(world.path())
        lost = next(p for p in steady_probes(world.path(), world.serials) if p.kind is Kind.UDP)
        world.probes = [*probes, lost]
        assert found(world, "arrives") == (FAILS, 10, 9, "icmp 3 of 3, udp 3 of 4, tcp 3 of 3 at south-lan")

    def test_a_packet_that_was_only_quoted_or_answered_has_not_arrived(self, world):
        probe = world.send_size(world.path(), 1401)
        world.too_big(probe, 1400)
        assert world.evidence().arrived(probe) is None

    def test_losses_of_the_capture_are_no_losses_of_the_tunnel(self, world):
        world.probes += steady_probes(world.path(), world.serials)
        world.recordings[world.path().destination.tap].dropped = 3
        result = found(world, "arrives")
        assert result.outcome is COULD_NOT_RUN
        assert "the kernel lost 3 packets" in result.evidence

    def test_a_host_that_cannot_send_proves_nothing(self, world):
        world.probes += steady_probes(world.path(), world.serials)
        world.unsent = {p.serial: "north-lan: Network is unreachable" for p in world.probes}
        assert found(world, "arrives")[::3] == (COULD_NOT_RUN, "north-lan: Network is unreachable")


class TestNoClear:
    def test_the_mark_in_clear_is_found_and_named(self, world):
        probes = world.send_steady()
        world.leak(probes[0])
        result = found(world, "no-clear")
        assert (result.outcome, result.measured) == (FAILS, 1)
        assert "1 of them marked, at gw-north:wan" in result.evidence
        assert "10.1.0.10 -> 10.2.0.10, protocol 1, 128 bytes" in result.evidence

    def test_the_mark_is_found_under_a_nat(self, world):
        probe = world.send_steady()[0]
        packet = IP(craft(probe, bytes(range(100, 116))))
        packet.src, packet.dst = "192.0.2.30", "192.0.2.99"
        world.hear(world.evidence().links["gw-south"].far, packet)
        assert found(world, "no-clear").outcome is FAILS

    def test_unmarked_packets_between_the_prefixes_count_too(self, world):
        world.send_steady()
        stray = IP(src="10.1.0.77", dst="10.2.0.1") / UDP() / Raw(b"not ours")
        world.hear(world.evidence().links["gw-north"].far, stray)
        result = found(world, "no-clear")
        assert (result.outcome, result.measured) == (FAILS, 1)
        assert "0 of them marked" in result.evidence

    def test_a_probe_at_a_gateway_that_the_tunnel_knows_nothing_of_counts(self, world, other_link):
        probe = world.send_steady()[0]
        world.hear(other_link.near, IP(craft(probe, TOKEN)))
        result = found(world, "no-clear", others={"gw-other": other_link})
        assert (result.outcome, result.measured) == (FAILS, 1)
        assert "at gw-other:wan" in result.evidence

    @pytest.mark.parametrize("answer", ["echo reply", "error"])
    def test_an_answer_there_counts_too(self, world, other_link, answer):
        probe = next(p for p in world.send_steady(world.path()) if p.kind is Kind.ICMP)
        sent = IP(craft(probe, TOKEN))
        back = IP(src=sent.dst, dst=sent.src)
        echo = back / ICMP(type=0, id=sent[ICMP].id, seq=sent[ICMP].seq) / sent[ICMP].payload
        error = back / ICMP(type=3, code=1) / Raw(bytes(sent))
        world.hear(other_link.far, echo if answer == "echo reply" else error)
        result = found(world, "no-clear", others={"gw-other": other_link})
        assert (result.outcome, result.measured) == (FAILS, 1)
        assert "1 of them marked" in result.evidence

    def test_where_no_other_gateway_can_be_heard_nothing_is_proven(self, world, other_link):
        world.send_steady()
        world.recordings[other_link.far].dropped = 3
        result = found(world, "no-clear", others={"gw-other": other_link})
        assert result.outcome is COULD_NOT_RUN
        assert "internet:to-gw-other: the kernel lost 3 packets" in result.evidence

    def test_a_gateway_that_is_gone_is_heard_at_the_internets_end(self, world, other_link):
        world.send_steady()
        world.recordings[other_link.near].trouble = "no such container"
        assert found(world, "no-clear", others={"gw-other": other_link}).outcome is HOLDS

    def test_packets_of_other_prefixes_do_not(self, world):
        world.send_steady()
        other = IP(src="10.1.0.77", dst="10.3.0.1") / UDP() / Raw(b"another tunnel's")
        world.hear(world.evidence().links["gw-north"].far, other)
        assert found(world, "no-clear").outcome is HOLDS

    def test_silence_without_esp_proves_nothing(self, world):
        probes = world.send_steady()
        for wan in world.evidence().wan:
            wan.packets.clear()
        assert found(world, "no-clear").outcome is COULD_NOT_RUN
        assert len(probes) > 0

    def test_silence_while_nothing_arrives_proves_nothing(self, world):
        world.probes += steady_probes(world.path(), world.serials)
        assert "no packet arrived" in found(world, "no-clear").evidence

    @pytest.mark.parametrize("trouble", ["dropped", "trouble", "unknown"])
    def test_a_lossy_capture_proves_nothing(self, world, trouble):
        world.send_steady()
        recording = world.evidence().wan[0]
        match trouble:
            case "dropped":
                recording.dropped = 1
            case "trouble":
                recording.trouble = "it ended at once"
            case _:
                recording.dropped = None
        assert found(world, "no-clear").outcome is COULD_NOT_RUN


class TestPeersAndSpis:
    def test_esp_to_somebody_else(self, world):
        world.send_steady()
        world.outer["gw-south"] = "192.0.2.66"
        world.send_steady(world.path())
        result = found(world, "peers-and-spis", before={}, after=world.evidence().before)
        assert result.outcome is FAILS
        assert "are 198.51.100.1 -> 192.0.2.66, not 198.51.100.1 -> 203.0.113.1" in result.evidence

    def test_an_spi_that_charon_does_not_report(self, world):
        world.send_steady()
        world.on_wan(
            world.path(),
            IP(src="198.51.100.1", dst="203.0.113.1") / ESP(spi=0xDEAD0001, seq=1) / Raw(b"x" * 40),
        )
        result = found(world, "peers-and-spis")
        assert result.outcome is FAILS
        assert "SPI dead0001, which charon does not report" in result.evidence

    def test_an_spi_that_only_one_end_reports(self, world):
        world.send_steady()
        alone = {"gw-north": world.view("gw-north", 50)}
        empty = {"gw-south": type(alone["gw-north"])("gw-south")}
        result = found(world, "peers-and-spis", before=alone | empty, after=alone | empty)
        assert result.outcome is FAILS
        assert "SPI c0000002 is reported by gw-north but not by gw-south" in result.evidence

    def test_counters_that_stand_still(self, world):
        world.send_steady()
        result = found(world, "peers-and-spis", after=world.evidence().before)
        assert result.outcome is FAILS
        assert "packets +0 out, +0 in; 11 of ours arrived" in result.evidence

    def test_counters_go_on_through_a_rekey(self, world):
        world.send_steady()
        views = {name: world.view(name, 30) for name in world.spis}
        world.spis = {name: spi + 0x100 for name, spi in world.spis.items()}
        after = {name: world.view(name, 30) for name in world.spis}
        assert found(world, "peers-and-spis", before=views, after=after).outcome is HOLDS

    def test_charons_that_cannot_be_asked(self, world):
        world.send_steady()
        why = {name: f"{name}: charon is not running" for name in world.spis}
        result = found(world, "peers-and-spis", before={}, after={}, unasked=why)
        assert result.outcome is COULD_NOT_RUN
        assert "gw-north: charon is not running" in result.evidence

    def test_addresses_behind_nat_are_those_of_each_place(self, nat_world):
        evidence = nat_world.evidence()
        path, back = nat_world.paths()
        north, south = evidence.links["gw-north"], evidence.links["gw-south"]
        assert str(evidence.outer_pair(path, north.near)) == "192.168.9.2 -> 203.0.113.1"
        assert str(evidence.outer_pair(path, north.far)) == "192.0.2.30 -> 203.0.113.1"
        assert str(evidence.outer_pair(back, south.near)) == "203.0.113.1 -> 192.0.2.30"


class TestEncapsulation:
    def test_udp_where_no_nat_is(self, world):
        world.encapsulation = Encapsulation.UDP
        world.send_steady()
        assert found(world, "encapsulation")[:3] == (FAILS, "protocol 50", "UDP 4500")

    def test_protocol_50_behind_nat(self, nat_world):
        nat_world.encapsulation = Encapsulation.NATIVE
        nat_world.send_steady()
        assert found(nat_world, "encapsulation")[:3] == (FAILS, "UDP 4500", "protocol 50")

    def test_a_charon_that_knows_no_other_way(self, world):
        world.encapsulation = Encapsulation.UDP
        world.send_steady()
        computed = replace(world.evidence().expected, encapsulation=Encapsulation.UDP)
        result = found(world, "encapsulation", expected=computed)
        assert result[:3] == (HOLDS, "UDP 4500", "UDP 4500")
        assert "a charon before 5.9.11" in result.evidence

    def test_no_esp(self, world):
        assert found(world, "encapsulation").outcome is COULD_NOT_RUN


class TestMss:
    @pytest.mark.parametrize("name", ["mss-syn", "mss-syn-ack"])
    @pytest.mark.parametrize("clamp", [None, 1361, 1359])
    def test_anything_but_the_computed_value_fails(self, world, name, clamp):
        world.clamp = clamp
        world.send_steady()
        assert found(world, name)[:3] == (FAILS, 1360, clamp or 1460)

    def test_ipv6_has_twenty_bytes_less(self, world):
        world.clamp = 1340
        path = world.path(6)
        world.send_steady(path)
        assert found(world, "mss-syn", path)[:3] == (HOLDS, 1340, 1340)

    @pytest.mark.parametrize(("name", "kind"), [("mss-syn", Kind.TCP), ("mss-syn-ack", Kind.SYN_ACK)])
    def test_one_that_did_not_come_through_the_tunnel_fails(self, world, other_link, name, kind):
        sent = world.send_steady(world.path())
        assert found(world, name, others={"gw-other": other_link}).outcome is HOLDS
        probe = next(p for p in sent if p.kind is kind and p.purpose is Purpose.MSS)
        world.hear(other_link.far, IP(craft(probe, TOKEN)))
        result = found(world, name, others={"gw-other": other_link})
        assert result[:3] == (FAILS, 1360, 1360)
        assert result.evidence.endswith("not through the tunnel: in clear at internet:to-gw-other")

    def test_where_the_wan_was_not_heard_it_is_not_known_which_way_it_came(self, world):
        world.send_steady()
        world.evidence().wan[0].trouble = "it ended at once"
        assert found(world, "mss-syn").outcome is COULD_NOT_RUN

    def test_a_syn_that_never_came(self, world):
        world.probes += [p for p in steady_probes(world.path(), world.serials) if p.purpose is Purpose.MSS]
        assert found(world, "mss-syn").evidence == "the SYN did not arrive"

    def test_a_flow_without_tcp_is_spared(self, tunnel_with, world):
        world.tunnel = tunnel_with("[{from: lan, to: north.lan, protocol: udp, port: 514}]")
        world.send_steady(*world.paths())
        checks, spared = check_path(world.path(), world.evidence())
        assert {item.check for item in spared} == {"mss-syn", "mss-syn-ack"}
        assert not {"mss-syn", "mss-syn-ack"} & {check.check for check in checks}
