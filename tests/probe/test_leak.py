"""The verdict of a watch: a leak is a failure whatever else; silence counts only where everything was
heard."""

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.ipsec import ESP
from scapy.packet import Raw

from ipsecctl.probe import Outcome, WanLink
from ipsecctl.probe.craft import craft
from ipsecctl.probe.leak import judge
from ipsecctl.probe.recording import Recording
from ipsecctl.probe.traffic import steady_probes


def test_silence_on_a_wan_that_was_heard_holds(world):
    world.send_steady()
    report = judge(world.evidence())
    assert (report.outcome, report.sent, report.arrived, report.leaked) == (Outcome.HOLDS, 22, 22, 0)
    assert report.esp_packets == report.wan_packets == 66
    assert report.evidence == "22 marked packets sent, 22 arrived, 66 WAN packets looked at, none in clear"


def only_sent(world):
    """Packets that are sent and never come anywhere."""
    world.probes += steady_probes(world.path(), world.serials)


def other_traffic(world):
    """What is on every WAN link besides the tunnel."""
    for recording in world.evidence().wan:
        world.hear(recording.tap, IP(src="198.51.100.1", dst="192.0.2.9") / UDP(sport=500, dport=500))


def test_a_tunnel_that_goes_down_may_lose_everything_and_leak_nothing(world):
    only_sent(world)
    other_traffic(world)
    world.on_wan(world.path(), world.esp(world.path(), 100))
    report = judge(world.evidence())
    assert (report.outcome, report.sent, report.arrived) == (Outcome.HOLDS, 11, 0), report.evidence


def test_a_leak_at_another_gateway_is_one_and_silence_there_is_none(world):
    probe = world.send_steady(*world.paths())[0]
    link = WanLink.between(("gw-other", "c-gw-other", "wan"), ("internet", "c-internet", "to-gw-other"))
    for tap in link.taps:
        world.recordings[tap] = Recording(tap, bytes(range(100, 116)))
        world.recordings[tap].dropped = 0
    assert judge(world.evidence(others={"gw-other": link})).outcome is Outcome.HOLDS
    world.hear(link.far, IP(craft(probe, bytes(range(100, 116)))))
    report = judge(world.evidence(others={"gw-other": link}))
    assert (report.outcome, report.leaked) == (Outcome.FAILS, 1)


def test_taps_that_heard_nothing_prove_nothing(world):
    only_sent(world)
    report = judge(world.evidence())
    assert report.outcome is Outcome.COULD_NOT_RUN
    assert "not one packet was heard at gw-north:wan, gw-south:wan, internet:to-gw-north" in report.evidence


def test_one_deaf_tap_among_others_proves_nothing(world):
    world.send_steady(world.path())
    report = judge(world.evidence())
    assert (report.outcome, report.arrived) == (Outcome.COULD_NOT_RUN, 11)
    assert report.evidence.endswith("not one packet was heard at gw-south:wan")


def test_a_wan_without_esp_proves_nothing(world):
    only_sent(world)
    other_traffic(world)
    report = judge(world.evidence())
    assert report.outcome is Outcome.COULD_NOT_RUN
    assert report.evidence.endswith("no ESP of the tunnel was seen, and nothing arrived")


@pytest.mark.parametrize("name", ["world", "dynamic_world"])
def test_esp_of_another_tunnel_is_no_esp_of_this_one(name, scene, request):
    world = request.getfixturevalue(name)
    only_sent(world)
    other_traffic(world)
    elsewhere = IP(src="192.0.2.77", dst="203.0.113.1") / ESP(spi=9, seq=1) / Raw(bytes(64))
    world.hear(scene.links["gw-south"].far, elsewhere)
    report = judge(world.evidence(before={}, after={}))
    assert (report.outcome, report.esp_packets) == (Outcome.COULD_NOT_RUN, 1)


def test_esp_of_a_gateway_without_a_fixed_address_is_known_at_its_own_link(dynamic_world, scene):
    only_sent(dynamic_world)
    other_traffic(dynamic_world)
    own = IP(src="192.0.2.30", dst="203.0.113.1") / ESP(spi=9, seq=1) / Raw(bytes(64))
    dynamic_world.hear(scene.links["gw-north"].near, own)
    assert judge(dynamic_world.evidence(before={}, after={})).outcome is Outcome.HOLDS


def test_captures_that_ended_early_prove_nothing(world):
    world.send_steady()
    world.evidence().wan[0].trouble = "the capture ended early"
    report = judge(world.evidence())
    assert report.outcome is Outcome.COULD_NOT_RUN
    assert report.evidence.endswith("capture at gw-north:wan: the capture ended early")


def test_one_packet_in_clear_fails_also_when_captures_were_lossy(world):
    probes = world.send_steady()
    world.leak(probes[0])
    world.evidence().wan[0].dropped = 9
    report = judge(world.evidence())
    assert (report.outcome, report.leaked) == (Outcome.FAILS, 1)
    assert "the first at gw-north:wan: 10.1.0.10 -> 10.2.0.10, protocol 1, 128 bytes" in report.evidence


def test_lossy_captures_prove_nothing(world):
    world.send_steady()
    world.evidence().wan[0].dropped = 9
    assert judge(world.evidence()).outcome is Outcome.COULD_NOT_RUN


def test_nothing_sent_proves_nothing(world):
    report = judge(world.evidence())
    assert report.outcome is Outcome.COULD_NOT_RUN
    assert report.as_json()["evidence"].endswith("nothing was sent")
