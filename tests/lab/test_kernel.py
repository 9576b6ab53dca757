"""The kernel's ESP, and what it needs taken away by hand while marked traffic flows: none leaves in clear.

``status`` then says what is wrong, and ``apply`` mends it. The tests of every example (test_examples.py) run
in the same labs; what is here needs xfrm policies and interfaces, which kernel-libipsec has not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ipsecctl.cli._outage import Victim
from ipsecctl.probe import LeakReport, Outcome
from ipsecctl.topology import Tunnel

LAB = "clinic-dc"
FLUSH = "ip xfrm policy flush; ip xfrm state flush"

pytestmark = [
    pytest.mark.lab,
    pytest.mark.kernel,
    pytest.mark.esp,
    pytest.mark.parametrize(
        "running", [pytest.param(LAB, marks=pytest.mark.xdist_group(LAB))], indirect=True, scope="session"
    ),
]
policy = pytest.mark.parametrize("mode", ["policy"], indirect=True, scope="session")
route = pytest.mark.parametrize("mode", ["route"], indirect=True, scope="session")
either = pytest.mark.parametrize("mode", ["policy", "route"], indirect=True, scope="session")


def tunnel_of(lab) -> Tunnel:
    """The tunnel between two public addresses."""
    (tunnel,) = (t for t in lab.topology.tunnels if not t.behind_nat)
    return tunnel


def victim_of(lab) -> str:
    """The end of it that has no other tunnel."""
    ends = tunnel_of(lab).left.gateway.name, tunnel_of(lab).right.gateway.name
    (name,) = (end for end in ends if end != "dc")
    return name


def health(lab) -> dict[str, Any]:
    tunnels = lab.json("status", lab.file, statuses=(0, 1, 3))["tunnels"]
    (found,) = (t for t in tunnels if t["name"] == tunnel_of(lab).name)
    return found


@contextmanager
def mended_by_apply(lab) -> Iterator[None]:
    """However the body ends, ``apply`` has all as it was, tunnels up, and nothing to do after that."""
    try:
        yield
    finally:
        lab.apply()
    assert "Nothing to do" in lab.ipsecctl("plan", lab.file).stdout


def commands_on(lab, *commands: str) -> Callable[[Any], None]:
    """What is to be done while traffic flows: commands on the victim, and more traffic after them."""

    def during(traffic) -> None:
        traffic.flows()
        lab.sh(victim_of(lab), "; ".join(commands))
        traffic.sent()

    return during


def no_leak(report: LeakReport) -> None:
    assert 0 < report.arrived < report.sent, report.evidence
    assert (report.outcome, report.leaked) == (Outcome.HOLDS, 0), report.evidence


@either
def test_esp_is_the_kernels(applied, record_property):
    """Protocol ESP between public addresses, in UDP to and from behind NAT; shown at the end of the run."""
    states = re.sub(r"0x[0-9a-f]{32,}", "(key)", applied.sh("dc", "ip -s xfrm state"))
    record_property("shown", f"ip -s xfrm state at dc, mode {applied.mode}:\n{states}")
    plain, in_udp = (
        [s for s in states.split("\nsrc ") if "proto esp" in s and ("encap type espinudp" in s) is udp]
        for udp in (False, True)
    )
    assert len(plain) >= 2 and len(in_udp) >= 2
    assert all("203.0.113.20" in state for state in plain)
    assert all("192.0.2.30" in state for state in in_udp)
    if_ids = {line for line in states.splitlines() if "if_id" in line}
    assert len(if_ids) == (2 if applied.mode == "route" else 0)


@either
def test_policies_and_states_flushed_by_hand(applied, watched):
    victim = Victim(applied.lab, victim_of(applied))
    case = f"policies and SAs flushed at {victim.gateway}"
    with mended_by_apply(applied):
        no_leak(watched(applied, tunnel_of(applied), case, commands_on(applied, FLUSH)))
        held = victim.holding_routes()
        found = health(applied)  # charon does not notice, and believes that it has what it had
        assert found["verdict"] == "down"
        assert f"{victim.gateway}: the kernel does not have the SAs that charon" in found["causes"][0]
    assert victim.holding_routes() == held


@policy
def test_policies_states_and_the_firewall_taken_away_by_hand(applied, watched):
    """What charon's own routes would let out is held by ours, which are looked up before them.

    Without our rule, too, which is the control, it is let out.
    """
    victim, tunnel = Victim(applied.lab, victim_of(applied)), tunnel_of(applied)
    held = victim.holding_routes()

    def ours_as_well(traffic) -> None:
        applied.sh(victim.gateway, "ip rule delete pref 219")
        traffic.sent()

    try:
        taken = commands_on(applied, f"{FLUSH}; nft delete table inet ipsecctl")
        no_leak(watched(applied, tunnel, f"policies, SAs and firewall gone at {victim.gateway}", taken))
        control = watched(applied, tunnel, "... and our rule, too: the control", ours_as_well)
        assert (control.outcome, control.leaked > 0) == (Outcome.FAILS, True), control.evidence
    finally:
        applied.charon(victim.gateway, "stop")
        applied.charon(victim.gateway, "start")
        applied.apply()
    assert victim.holding_routes() == held
    assert "219:" in applied.sh(victim.gateway, "ip rule")
    assert health(applied)["verdict"] == "up"


@policy
def test_a_rule_and_the_firewall_deleted_by_hand_are_a_degraded_tunnel(applied):
    victim = victim_of(applied)
    with mended_by_apply(applied):
        applied.sh(victim, "ip rule delete pref 219; nft delete table inet ipsecctl")
        found = health(applied)
        assert found["verdict"] == "degraded"
        assert any("the rule that has forwarded IPv4 packets looked up" in cause for cause in found["causes"])
        assert any("firewall" in cause for cause in found["causes"])
        planned = applied.ipsecctl("plan", applied.file, statuses=(0, 2)).stdout
        assert "+ rule ipv4 [drift]: it was applied" in planned


@policy
def test_our_table_and_priority_taken_by_somebody_else_is_refused_and_nothing_touched(applied):
    victim = victim_of(applied)
    theirs = ("rule {} pref 219 lookup 77", "route {} 192.0.2.77/32 dev lo table 213")
    look = "ip rule; ip route show table 213"
    before = applied.sh(victim, look)
    applied.sh(victim, "; ".join(f"ip {words.format('add')}" for words in theirs))
    try:
        taken = applied.sh(victim, look)
        done = applied.ipsecctl("apply", applied.file, "--yes", statuses=(1,))
        assert f"{victim}: a rule for IPv4 that ipsecctl did not make ('219: table 77')" in done.stderr
        assert f"{victim}: in routing table 213 there is a route that ipsecctl did not make" in done.stderr
        assert applied.sh(victim, look) == taken
    finally:
        applied.sh(victim, "; ".join(f"ip {words.format('delete')}" for words in theirs))
    assert applied.sh(victim, look) == before
    assert "Nothing to do" in applied.ipsecctl("plan", applied.file).stdout


@route
@pytest.mark.parametrize(
    ("case", "how", "says", "firewall_alone"),
    [
        ("interface down", "ip link set {} down", "is down", False),
        ("interface and holding routes deleted", "ip link delete {}", "is not there", True),
    ],
    ids=["down", "deleted"],
)
def test_an_interface_taken_away(applied, watched, case: str, how: str, says: str, firewall_alone: bool):
    victim = Victim(applied.lab, victim_of(applied))
    (interface,) = applied.xfrm_interfaces(victim.gateway)
    commands = [how.format(interface)]
    if firewall_alone:
        commands += [" ".join(words) for words in victim.second_layer() if "route" in words]
    with mended_by_apply(applied):
        before = victim.dropped()
        no_leak(watched(applied, tunnel_of(applied), case, commands_on(applied, *commands)))
        assert (victim.dropped() > before) == firewall_alone
        found = health(applied)
        assert found["verdict"] == "degraded"
        assert f"{victim.gateway}: its interface {interface} {says}" in " ".join(found["causes"])
    assert applied.xfrm_interfaces(victim.gateway) == [interface]
