"""The verdict of a watch: a leak is a failure whatever else; silence counts only where everything was
heard."""

from ipsecctl.probe import Outcome
from ipsecctl.probe.leak import judge
from ipsecctl.probe.traffic import steady_probes


def test_silence_on_a_wan_that_was_heard_holds(world):
    world.send_steady()
    report = judge(world.evidence())
    assert (report.outcome, report.sent, report.arrived, report.leaked) == (Outcome.HOLDS, 22, 22, 0)
    assert report.esp_packets == report.wan_packets == 66
    assert report.evidence == "22 marked packets sent, 22 arrived, 66 WAN packets looked at, none in clear"


def test_a_tunnel_that_is_down_may_lose_everything_and_leak_nothing(world):
    world.probes += steady_probes(world.path(), world.serials)
    report = judge(world.evidence())
    assert (report.outcome, report.sent, report.arrived) == (Outcome.HOLDS, 11, 0)


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
