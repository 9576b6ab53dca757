"""What is said of a gateway whose charon does not run, or runs with other options than were applied."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway import CharonSilent, Guard, ShellView
from ipsecctl.health import EndState, Verdict, judge, status_json

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MTU, LIBIPSEC = "kernel-netlink.mtu", "kernel-libipsec.raw_esp"
HOW = "systemctl restart strongswan"


def one(tunnel, **views):
    (health,) = judge([tunnel], views, NOW)
    return health


@pytest.mark.parametrize("down", [True, False])
def test_firewall_and_forwarding_are_told_without_charon(made, down):
    silent = CharonSilent(
        GatewayUnreachable("b", "no charon", charon_down=down), ShellView(Guard.MISSING, forwarding=False)
    )
    views = {"a": made.view("a", made.ike(made.child()), guard=Guard.LOADED), "b": silent}
    health = one(made.tunnel, **views)
    assert health.verdict is (Verdict.DOWN if down else Verdict.UNKNOWN)
    assert health.causes[-2:] == (
        "b: the no-leak firewall (nft table inet ipsecctl) is not loaded: apply the topology",
        "b: the kernel does not forward packets: apply the topology",
    )
    assert health.ends[1].state is (EndState.CHARON_DOWN if down else EndState.UNREACHABLE)
    (told,) = status_json([health], views, NOW)["tunnels"]
    assert (told["ends"][1]["guard"], told["ends"][1]["forwarding"]) == ("missing", False)


def running(made, pending, mtu):
    tunnel = replace(made.tunnel, mtus={"a": mtu} if mtu else {})
    left = made.view("a", made.ike(made.child()), pending=pending, restart=HOW)
    return one(tunnel, a=left, b=made.view("b", made.ike(made.child(flipped=True), initiator="no")))


@pytest.mark.parametrize(
    "running_with",
    ["", "1350", "0", "1450"],
)
def test_a_tunnel_that_takes_larger_packets_than_it_carries_is_degraded(made, running_with):
    health = running(made, {MTU: (running_with, "1326")}, 1326)
    assert health.verdict is Verdict.DEGRADED
    runs = f"charon on a runs with other options than applied ({MTU}: 1326 wanted)"
    assert health.causes == (f"{runs}: packets over 1326 bytes may be lost; restart charon: {HOW}",)
    (told,) = status_json([health], {}, NOW)["tunnels"]
    assert told["ends"][0]["restart_for"] == [f"{MTU} = 1326"]


@pytest.mark.parametrize(
    ("pending", "mtu"),
    [
        ({}, 1326),
        ({MTU: ("1326", "1350")}, 1350),
        ({MTU: ("1326", "")}, 1400),
        ({MTU: ("", "1326")}, None),  # its own interface, or the routes of our table, limit it
    ],
)
def test_a_tunnel_that_loses_nothing_is_up(made, pending, mtu):
    assert running(made, pending, mtu).verdict is Verdict.UP


def test_another_data_path_than_applied_concerns_every_tunnel(made):
    health = running(made, {LIBIPSEC: ("", "yes")}, None)
    expected = (
        f"charon on a runs with other options than applied ({LIBIPSEC}: yes wanted); restart charon: {HOW}"
    )
    assert (health.verdict, health.causes) == (Verdict.DEGRADED, (expected,))
