"""Verdicts where packets do not find their way into charon's own device, or nothing was ever applied."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from netaddr import IPAddress, IPNetwork

from ipsecctl.desired import Means
from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway import CharonSilent, Device, Guard, KernelView, NotInKernel, ShellView, WayOut
from ipsecctl.health import OwnDevice, Verdict, judge, left_over, status_json
from ipsecctl.topology import DataPath

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FAR = (IPNetwork("10.2.0.0/24"), IPNetwork("fd00:2::/64"))
LOST = NotInKernel("t", "t", "11111111")


def judged(made, device, *, lost=None, up=True, routes=frozenset(FAR), trap=True, loaded=("t",)):
    trapped = (("t", FAR),) if trap else ()
    tunnel = replace(made.tunnel, devices={"a": OwnDevice(FAR, trapped)})
    path = KernelView(routes=routes, device=device)
    shell = {"in_kernel": path, "means": {"a": Means(DataPath.LIBIPSEC)}, "restart": "HOW"}
    left = made.view("a", *([made.ike(made.child())] if up else []), loaded=loaded, **shell)
    right = made.view("b", *([made.ike(made.child(flipped=True), initiator="no")] if up else []))
    (health,) = judge([tunnel], {"a": replace(left, not_in_kernel=(lost,) if lost else ()), "b": right}, NOW)
    return health


def test_in_order(made):
    assert judged(made, Device()).causes == ()


@pytest.mark.parametrize(("dead", "verdict"), [(True, Verdict.DOWN), (False, Verdict.DEGRADED)])
def test_a_missing_rule(made, dead, verdict):
    health = judged(made, Device(unruled=frozenset({4})), lost=replace(LOST, dead=dead, unruled=(4,)))
    assert (health.verdict, len(health.causes)) == (verdict, 1)
    assert health.causes[0] == (
        "a: the rule by which IPv4 packets find charon's routes is not there (220: from all lookup 220), so "
        "they do not enter the tunnel: apply the topology"
    )
    (told,) = status_json([health], {}, NOW)["tunnels"]
    assert told["ends"][0]["ike_sas"][0]["child_sas"][0]["kernel_lacks"] == ["rule for IPv4"]


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize(
    ("device", "says"),
    [
        (Device(up=False), "a: charon's device ipsec0 is down, and nothing passes through it: ip link set"),
        (Device(there=False, up=False), "a: charon's device ipsec0 is gone, and nothing passes"),
    ],
)
def test_a_device_that_carries_nothing(made, device, says, up):
    lost = replace(LOST, routes=("10.2.0.0/24",), device=device.lacks) if up else None
    health = judged(made, device, lost=lost, up=up, routes=frozenset())
    assert health.verdict is Verdict.DOWN
    assert health.causes[0].startswith(says)
    assert len(health.causes) == (1 if up else 2), "its routes are not a cause of their own"
    assert ("HOW" in health.causes[0]) == (device.lacks == "gone")


def test_a_trap_without_routes(made):
    health = judged(made, Device(), up=False, routes=frozenset())
    assert health.causes[0].startswith(
        "a: charon's routes through ipsec0 are not there (10.2.0.0/24, fd00:2::/64)"
    )
    for other in ({"trap": False}, {"loaded": ()}, {"routes": None}, {"routes": frozenset(FAR)}):
        told = judged(made, Device(), up=False, **{"routes": frozenset(), **other})
        assert not any("routes" in cause for cause in told.causes), other


def test_an_end_seen_alone_does_not_call_it_up(made):
    tunnel = replace(made.tunnel, devices={"a": OwnDevice(FAR)})
    shell = {"in_kernel": KernelView(device=Device(up=False)), "means": {"a": Means(DataPath.LIBIPSEC)}}
    views = {"a": made.view("a", made.ike(made.child()), **shell), "b": GatewayUnreachable("b", "no route")}
    (health,) = judge([tunnel], views, NOW)
    assert health.verdict is Verdict.UNKNOWN
    assert "ipsec0 is down" in health.causes[1]


def test_before_the_first_apply_there_is_one_cause(made):
    bare = {"applied": False, "forwarding": False, "guard": Guard.UNKNOWN}
    views = {name: made.view(name, loaded=(), **bare) for name in "ab"}
    (health,) = judge([made.tunnel], views, NOW)
    assert health.causes == ("nothing has been applied yet on a and b: apply the topology",)
    silent = CharonSilent(GatewayUnreachable("b", "no charon", charon_down=True), ShellView(**bare))
    (health,) = judge([made.tunnel], {**views, "b": silent}, NOW)
    assert health.causes == ("b: no charon", "nothing has been applied yet on a and b: apply the topology")


def test_routes_that_hold_and_are_not_there(made):
    views = {
        "a": made.view("a", made.ike(made.child()), applied=True, unheld=("10.2.0.0/24",)),
        "b": made.view("b", made.ike(made.child(flipped=True), initiator="no"), applied=True, unheld=()),
    }
    (health,) = judge([made.tunnel], views, NOW)
    assert health.verdict is Verdict.DEGRADED
    assert health.causes == (
        "a: the routes that hold what no tunnel carries are not there (10.2.0.0/24): apply the topology",
    )
    (told,) = status_json([health], views, NOW)["tunnels"]
    assert [end["holding_routes_missing"] for end in told["ends"]] == [["10.2.0.0/24"], []]


def test_sas_of_what_is_not_declared_any_more(made):
    old, going = made.ike(made.child("old"), name="old"), made.ike(name="gone", state="DELETING")
    theirs = made.ike(made.child("theirs"), name="theirs")
    ours = frozenset({"t", "old", "gone"})
    views = {
        "a": made.view("a", made.ike(made.child()), old, going, theirs, ours=ours),
        "b": made.view("b", made.ike(made.child(flipped=True), initiator="no"), ours=ours),
    }
    tunnels = judge([made.tunnel], views, NOW)
    assert left_over(tunnels, views) == {"a": ("old",)}
    assert [g["left_over"] for g in status_json(tunnels, views, NOW)["gateways"]] == [["old"], []]


PAIRS = (
    (IPNetwork("10.1.0.0/24"), IPNetwork("10.2.0.0/24")),
    (IPNetwork("fd00:1::/64"), IPNetwork("fd00:2::/64")),
)


@pytest.mark.parametrize(("up", "verdict"), [(True, Verdict.DEGRADED), (False, Verdict.DOWN)])
def test_routes_that_cannot_come_back_are_told_with_what_bars_them(made, up, verdict):
    tunnel = replace(made.tunnel, devices={"a": OwnDevice(FAR, (("t", FAR),), (("t", PAIRS),))})
    lost = replace(LOST, routes=("fd00:2::/64",), dead=False)
    path = KernelView(routes=frozenset(FAR[:1]), device=Device(ipv6_off="all"))
    shell = {"in_kernel": path, "means": {"a": Means(DataPath.LIBIPSEC)}}
    left = made.view("a", *([made.ike(made.child())] if up else []), **shell)
    right = made.view("b", *([made.ike(made.child(flipped=True), initiator="no")] if up else []))
    views = {"a": replace(left, not_in_kernel=(lost,) if up else ()), "b": right}
    (health,) = judge([tunnel], views, NOW)
    assert health.verdict is verdict
    assert health.causes[0].startswith("a: IPv6 is off on ipsec0")
    assert not any("makes the SAs anew" in cause for cause in health.causes), "that would not help"


@pytest.mark.parametrize("up", [True, False])
def test_an_end_that_can_send_nothing(made, up):
    tunnel = replace(made.tunnel, right=replace(made.tunnel.right, address=IPAddress("192.0.2.2")))
    lost = WayOut({IPAddress("192.0.2.2"): "Network is unreachable"}, frozenset([IPAddress("192.0.2.1")]))
    views = {
        "a": made.view("a", *([made.ike(made.child())] if up else []), way_out=lost),
        "b": made.view("b", *([made.ike(made.child(flipped=True), initiator="no")] if up else [])),
    }
    (health,) = judge([tunnel], views, NOW)
    assert health.verdict is Verdict.DOWN
    assert [cause.partition(":")[0] for cause in health.causes[:2]] == [
        "a does not have its declared address 192.0.2.1",
        "a has no route to 192.0.2.2 (Network is unreachable)",
    ]
    moving = replace(
        tunnel, left=replace(tunnel.left, address=None), right=replace(tunnel.right, address="gw")
    )
    (health,) = judge([moving], views, NOW)
    assert health.verdict is (Verdict.UP if up else Verdict.DOWN)
    assert not any("route" in cause or "address" in cause for cause in health.causes)


@pytest.mark.parametrize("up", [True, False])
def test_a_way_by_another_interface_is_told_where_the_tunnel_is_down(made, up):
    tunnel = replace(made.tunnel, right=replace(made.tunnel.right, address=IPAddress("192.0.2.2")))
    astray = WayOut(astray={IPAddress("192.0.2.2"): (IPAddress("192.0.2.1"), "wan", "lan")})
    views = {
        "a": made.view("a", *([made.ike(made.child())] if up else []), way_out=astray),
        "b": made.view("b", *([made.ike(made.child(flipped=True), initiator="no")] if up else [])),
    }
    (health,) = judge([tunnel], views, NOW)
    assert health.verdict is (Verdict.UP if up else Verdict.DOWN)
    told = "a sends to 192.0.2.2 by lan, and not by wan, which has its address 192.0.2.1: look whether"
    assert [cause.startswith(told) for cause in health.causes[:1]] == ([] if up else [True])
