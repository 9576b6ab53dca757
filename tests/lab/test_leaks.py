"""Marked traffic both ways while a tunnel's SAs come and go by themselves: none of it leaves in clear.

What is taken away by hand, and needs xfrm policies and interfaces for that, is in test_kernel.py; a charon
that dies in every example is in test_examples.py. The verdict of every capture stands in a table at the end
of the run.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ipsecctl.cli._outage import Victim
from ipsecctl.lab import run
from ipsecctl.patience import PATIENCE
from ipsecctl.probe import LeakReport, Outcome
from ipsecctl.topology import Tunnel

LAB = "clinic-dc"
UNDER_WAY = 24
"""More packets than can be on their way when a watch ends."""
REKEYS = ("child", "ike", "child", "ike", "child", "ike")

pytestmark = [
    pytest.mark.lab,
    pytest.mark.parametrize(
        "running", [pytest.param(LAB, marks=pytest.mark.xdist_group(LAB))], indirect=True, scope="session"
    ),
    pytest.mark.parametrize(
        "mode", ["policy", pytest.param("route", marks=pytest.mark.esp)], indirect=True, scope="session"
    ),
]

_SPI = {
    "child": re.compile(r"state=INSTALLED[^{}]*? spi-in=(\w+)"),
    "ike": re.compile(r"state=ESTABLISHED[^{}]*? initiator-spi=(\w+)"),
}


def tunnel_of(lab) -> Tunnel:
    """The tunnel between two public addresses."""
    (tunnel,) = (t for t in lab.topology.tunnels if not t.behind_nat)
    return tunnel


def spis(lab, gateway: str, what: str) -> set[str]:
    """The SPIs of a tunnel's CHILD_SAs (inbound) or IKE_SAs (initiator's) that are in use at a gateway."""
    return set(_SPI[what].findall(lab.sh(gateway, f"swanctl --list-sas --ike {tunnel_of(lab).name} --raw")))


def nothing_in_clear(report: LeakReport) -> None:
    assert report.arrived > 0
    assert (report.outcome, report.leaked) == (Outcome.HOLDS, 0), report.evidence


@pytest.mark.kernel
def test_rekeyed_again_and_again(applied, watched):
    """CHILD_SAs and IKE_SAs, from either end; what is sent meanwhile arrives."""
    tunnel = tunnel_of(applied)
    ends = applied.ends(tunnel)

    def during(traffic) -> None:
        traffic.flows()
        for number, what in enumerate(REKEYS):
            who = ends[number % len(ends)]
            before = spis(applied, who, what)
            applied.sh(who, f"swanctl --rekey --{what} {tunnel.name}")
            traffic.until(
                lambda: (now := spis(applied, who, what)) and not now & before,  # noqa: B023
                f"new SPIs ({what}) at {who}",
            )
        traffic.flows()

    report = watched(applied, tunnel, f"{len(REKEYS)} rekeys forced, CHILD_SA and IKE_SA in turn", during)
    nothing_in_clear(report)
    assert report.sent - report.arrived < UNDER_WAY, report.evidence


@pytest.mark.kernel_for(f"{LAB} policy")  # without SAs, in both modes: test_kernel.py
def test_sas_that_expire_because_rekeying_is_blocked(applied, watched, tmp_path: Path):
    """With the shortest lifetimes that validate lets through, and IKE dropped between the two gateways."""
    brief = applied.changed(
        tmp_path,
        lambda text: text.replace("profile: modern", "profile: brief").replace(
            "\nsites:", "\nprofiles:\n  brief: {based_on: modern, esp_rekey: 11s, esp_life: 21s}\n\nsites:"
        ),
    )
    tunnel = tunnel_of(brief)
    ends = brief.ends(tunnel)
    gateways = ", ".join(address(brief, end) for end in ends)
    rules = f"ip saddr {{ {gateways} }} ip daddr {{ {gateways} }} udp dport {{ 500, 4500 }} counter drop"
    block = (
        f"table inet no-ike {{\n chain through {{\n type filter hook forward priority 0;\n {rules}\n }}\n}}\n"
    )

    def during(traffic) -> None:
        traffic.flows()
        brief.sh("internet", "nft -f -", block.encode())
        traffic.stops(within_s=40 * PATIENCE)  # they live for 21 s
        # It stops when the first end has none: the one that calls gives up before they expire.
        traffic.until(lambda: not esp_at_either(brief, ends), f"no SAs at {' and '.join(ends)}")
        traffic.sent(48)

    try:
        brief.apply()
        anew(brief, tunnel)
        report = watched(brief, tunnel, "SAs expired, rekeying blocked", during)
    finally:
        brief.sh("internet", "nft delete table inet no-ike", statuses=(0, 1))
        applied.apply()
    nothing_in_clear(report)
    assert report.arrived < report.sent


def address(lab, gateway: str) -> str:
    (found,) = (g.address for g in lab.topology.gateways() if g.name == gateway)
    return str(found)


def esp_between(lab, gateway: str, ends) -> list[str]:
    """The kernel's ESP SAs at a gateway between two gateways.

    Those without a key are none: they wait for an SPI, or for the far end's answer to ours.
    """
    pair = {address(lab, end) for end in ends}
    states = lab.sh(gateway, "ip xfrm state").split("\nsrc ")
    return [s for s in states if pair <= set(s.split()[:5]) and re.search(r"(?m)^\s+(aead|enc) ", s)]


def esp_at_either(lab, ends) -> list[str]:
    return [state for end in ends for state in esp_between(lab, end, ends)]


def anew(lab, tunnel: Tunnel) -> None:
    """Have the SAs of a tunnel made anew, with the lifetimes that are configured now."""
    caller = (tunnel.left if tunnel.initiator == "left" else tunnel.right).gateway.name
    lab.sh(caller, f"swanctl --terminate --ike {tunnel.name}; swanctl --initiate --child {tunnel.name}")


@pytest.mark.kernel_for(f"{LAB} route")  # the other mode, and a power cut: test_reboot.py
def test_before_charon_has_started_after_a_boot(applied, watched):
    """Nothing but the guard is in force, as systemd's unit brings it; then charon reads its files."""
    tunnel = tunnel_of(applied)
    caller = (tunnel.left if tunnel.initiator == "left" else tunnel.right).gateway.name
    victim = Victim(applied.lab, caller)
    held = victim.holding_routes()
    ways = [("ip", "link", "delete", name) for name in applied.xfrm_interfaces(caller)]

    def during(traffic) -> None:
        traffic.flows()
        applied.charon(caller, "kill")
        for command in (*victim.second_layer(), *ways):
            assert run(applied.lab, caller, command).status == 0
        applied.sh(caller, "sh /etc/ipsecctl/guard")
        assert victim.holding_routes() == held
        traffic.sent(48)
        applied.charon(caller, "start")
        assert "failed" not in applied.sh(caller, "swanctl --load-all 2>&1")
        traffic.flows()

    try:
        report = watched(applied, tunnel, "no charon yet, as after a boot; then it starts", during)
    finally:
        applied.apply()
    nothing_in_clear(report)
    assert report.arrived < report.sent
