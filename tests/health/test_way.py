"""What a status says of the way into a tunnel: its interface, the routes into it, and who changes packets."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from netaddr import IPNetwork

from ipsecctl.desired import (
    HOLDING_TABLE,
    INTO_METRIC,
    Interface,
    OwnNetwork,
    Route,
    RouteKind,
    Rule,
    RuleKind,
    own_rules,
)
from ipsecctl.gateway import Link, RouteSeen, RuleSeen, WayHome, WaysSeen
from ipsecctl.health import Verdict, Way, judge, lost_homes, status_json
from ipsecctl.topology import Mode

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FAR = IPNetwork("10.2.0.0/24")
IX = Interface("ix-t", 0x2A, 1438, (), "t")
ROUTED = Way(Mode.ROUTE, IX, (Route(FAR, "t", RouteKind.INTO, "ix-t", INTO_METRIC),), (FAR,))
BY_POLICY = Way(Mode.POLICY, far=(FAR,))
LINK = Link("ix-t", "xfrm", 0x2A, 1438, True, ours=True)
INTO = RouteSeen(FAR, "unicast", "ix-t", INTO_METRIC, ours=True)
GOOD = WaysSeen({"ix-t": LINK}, frozenset({INTO}))


def judged(made, way, seen=GOOD, **shell):
    """Return the verdict on a tunnel whose SAs are as they must be, ``way`` the way into it at ``a``."""
    tunnel = replace(made.tunnel, ways={"a": way, "b": BY_POLICY})
    views = {
        "a": made.view("a", made.ike(made.child()), ways=seen, **shell),
        "b": made.view("b", made.ike(made.child(flipped=True))),
    }
    (health,) = judge([tunnel], views, NOW)
    return health


def test_a_way_that_is_there(made):
    health = judged(made, ROUTED)
    assert (health.verdict, health.causes) == (Verdict.UP, ())


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        (WaysSeen(), "a: its interface ix-t is not there: apply the topology"),
        (
            WaysSeen({"ix-t": Link("ix-t")}, GOOD.routes),
            "a: ix-t is not an xfrm interface: remove it (ip link delete ix-t), and apply the topology",
        ),
        (
            WaysSeen({"ix-t": replace(LINK, if_id=7)}, GOOD.routes),
            "a: its interface ix-t has if_id 0x7 instead of 0x2a, and carries nothing: apply the topology",
        ),
        (
            WaysSeen({"ix-t": replace(LINK, up=False)}),
            "a: its interface ix-t is down: ip link set ix-t up, or apply the topology",
        ),
        (
            WaysSeen({"ix-t": replace(LINK, mtu=1500)}, GOOD.routes),
            "a: its interface ix-t has an MTU of 1500 instead of 1438 bytes: apply the topology",
        ),
        (WaysSeen({"ix-t": LINK}), "a: no route leads 10.2.0.0/24 into it: apply the topology"),
        (
            WaysSeen({"ix-t": LINK}, frozenset({INTO, RouteSeen(FAR, interface="eth0", via="192.0.2.9")})),
            (
                "a: another route to 10.2.0.0/24 (no metric) goes via 192.0.2.9 (eth0), not into it: remove "
                "that, or give it a metric above ours"
            ),
        ),
    ],
)
def test_what_is_wrong_with_a_way_degrades_the_tunnel(made, seen, cause):
    health = judged(made, ROUTED, seen)
    assert (health.verdict, health.causes) == (Verdict.DEGRADED, (cause,))


def test_others_routes_that_do_no_harm(made):
    behind = RouteSeen(FAR, interface="eth0", metric=1024)
    elsewhere = RouteSeen(IPNetwork("10.3.0.0/24"), interface="eth0")
    seen = WaysSeen({"ix-t": LINK}, frozenset({INTO, behind, elsewhere}))
    assert judged(made, ROUTED, seen).verdict is Verdict.UP


def test_what_nobody_could_look_at_makes_nothing_worse(made):
    health = judged(made, ROUTED, None)
    assert (health.verdict, health.causes) == (Verdict.UP, ())
    assert health.ends[0].way.known is False


def test_a_tunnel_that_is_down_says_so_too(made):
    tunnel = replace(made.tunnel, ways={"a": ROUTED})
    views = {"a": made.view("a", ways=WaysSeen()), "b": made.view("b")}
    (health,) = judge([tunnel], views, NOW)
    assert health.verdict is Verdict.DOWN
    assert "a: its interface ix-t is not there: apply the topology" in health.causes


def test_packets_that_nat_has_changed_are_a_note(made):
    health = judged(made, BY_POLICY, None, rewritten=12)
    assert health.verdict is Verdict.UP
    assert health.causes == (
        (
            "a: 12 packets for tunnels were changed by NAT on this gateway, and held back: exempt "
            "10.2.0.0/24 from masquerading there"
        ),
    )
    assert judged(made, BY_POLICY, None, rewritten=0).causes == ()
    assert judged(made, ROUTED, rewritten=12).causes == ()  # an interface does not care for sources


def test_many_networks_are_not_all_listed(made):
    far = tuple(IPNetwork(f"10.{n}.0.0/16") for n in range(9))
    (cause,) = judged(made, replace(BY_POLICY, far=far), None, rewritten=1).causes
    assert "1 packet for" in cause
    assert "10.3.0.0/16 and 5 more from" in cause


def test_the_document(made):
    seen = WaysSeen({"ix-t": replace(LINK, mtu=1500)})
    (tunnel,) = status_json([judged(made, ROUTED, seen, rewritten=0)], {}, NOW)["tunnels"]
    a, b = tunnel["ends"]
    assert (a["mode"], b["mode"]) == ("route", "policy")
    assert a["interface"] == {
        "name": "ix-t",
        "present": True,
        "up": True,
        "if_id": 42,
        "mtu": 1500,
        "routes_missing": ["10.2.0.0/24"],
    }
    assert b["interface"] is None
    (tunnel,) = status_json([judged(made, ROUTED, None)], {}, NOW)["tunnels"]
    assert tunnel["ends"][0]["interface"]["present"] is None


# ---------------------------------------------------------------------------------------------- our own table

HELD_ROUTE = Route(FAR, "t", RouteKind.HOLDING, "ix-hold", 0, mtu=1438, table=HOLDING_TABLE)
HELD = Way(Mode.POLICY, far=(FAR,), held=(HELD_ROUTE,), rules=(Rule(4),))
HOLD = Link("ix-hold", "dummy", None, 65535, True, ours=True)
THERE = RouteSeen(FAR, interface="ix-hold", mtu=1438, ours=True)
RULE = RuleSeen(4, 219, "not iif lo table 213", 213, True, Rule(4))
NO_RULE = (
    "a: the rule that has forwarded IPv4 packets looked up in routing table 213 is not there, or is another "
    "one: apply the topology"
)
HOLDING = WaysSeen({"ix-hold": HOLD}, held={FAR: THERE}, rules=(RULE,))


def test_packets_that_are_held(made):
    assert judged(made, HELD, HOLDING).causes == ()
    assert judged(made, HELD, None).causes == ()  # nobody could look


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        (
            replace(HOLDING, rules=()),
            NO_RULE,
        ),
        (
            replace(HOLDING, rules=(replace(RULE, rule=None), replace(RULE, family=6, rule=Rule(6)))),
            NO_RULE,
        ),
        (
            replace(HOLDING, held={}),
            "a: routing table 213 does not hold 10.2.0.0/24 while the tunnel is down: apply the topology",
        ),
        (
            replace(HOLDING, held={FAR: replace(THERE, mtu=1500)}),
            (
                "a: in routing table 213 the route to 10.2.0.0/24 has an MTU of 1500 instead of 1438 bytes: "
                "apply the topology"
            ),
        ),
        (
            replace(HOLDING, held={FAR: RouteSeen(FAR, "throw", ours=True)}),
            "a: in routing table 213 10.2.0.0/24 is no route to ix-hold: apply the topology",
        ),
        (
            replace(HOLDING, links={}, held={}),
            "a: its interface ix-hold is not there: apply the topology",
        ),
        (
            replace(HOLDING, links={"ix-hold": replace(HOLD, up=False)}, held={}),
            "a: its interface ix-hold is down: ip link set ix-hold up, and apply the topology",
        ),
    ],
)
def test_what_is_wrong_with_what_holds_packets_degrades_the_tunnel(made, seen, cause):
    health = judged(made, HELD, seen)
    assert (health.verdict, health.causes) == (Verdict.DEGRADED, (cause,))


# ------------------------------------------------------------------------------------------- its own networks

LAN, LAB = OwnNetwork(IPNetwork("10.1.0.0/24"), "lan"), OwnNetwork(IPNetwork("10.1.1.0/24"), "lab")
OWN = own_rules([LAN, LAB])
HOME = Way(Mode.POLICY, far=(FAR,), rules=OWN, own=(LAN, LAB), all_own=True)
OWN_SEEN = tuple(RuleSeen(4, rule.priority, "", 0, True, rule, rule.prefix) for rule in OWN)
REACHED = {LAN.prefix: WayHome.THERE, LAB.prefix: WayHome.THERE}
AT_HOME = WaysSeen(rules=OWN_SEEN, homes=REACHED)


def test_a_gateway_that_reaches_its_networks(made):
    health = judged(made, HOME, AT_HOME)
    assert (health.verdict, health.causes) == (Verdict.UP, ())
    assert judged(made, HOME, None).causes == ()  # nobody could look
    assert judged(made, HOME, replace(AT_HOME, homes={})).causes == ()  # nobody asked
    (tunnel,) = status_json([health], {}, NOW)["tunnels"]
    assert tunnel["ends"][0]["networks"] == [
        {"name": "lan", "prefix": "10.1.0.0/24", "route": "there"},
        {"name": "lab", "prefix": "10.1.1.0/24", "route": "there"},
    ]


def test_what_an_apply_is_told_of_the_way_home_does_not_wait_for_rules():
    lost = WaysSeen(homes=REACHED | {LAN.prefix: WayHome.MISSING})
    (cause,) = lost_homes("a", HOME, lost)
    assert cause == f"a: no route into its network {LAN}: what comes out of the tunnel for it is held"
    assert lost_homes("a", HOME, WaysSeen(homes=REACHED)) == ()
    assert lost_homes("a", HOME, WaysSeen()) == ()  # nobody asked


@pytest.mark.parametrize(
    ("way", "homes", "verdict", "cause"),
    [
        (
            HOME,
            {LAB.prefix: WayHome.MISSING},
            Verdict.DEGRADED,
            "a: no route into its network lab 10.1.1.0/24: what comes out of the tunnel for it is held",
        ),
        (
            HOME,
            {LAN.prefix: WayHome.MISSING, LAB.prefix: WayHome.MISSING},
            Verdict.DOWN,
            (
                "a: no route into its networks lan 10.1.0.0/24, lab 10.1.1.0/24: what comes out of the "
                "tunnel for them is held"
            ),
        ),
        (
            replace(HOME, all_own=False),  # another one, as a way out to the Internet, is still reached
            {LAN.prefix: WayHome.MISSING, LAB.prefix: WayHome.MISSING},
            Verdict.DEGRADED,
            (
                "a: no route into its networks lan 10.1.0.0/24, lab 10.1.1.0/24: what comes out of the "
                "tunnel for them is held"
            ),
        ),
        (
            HOME,
            {LAN.prefix: WayHome.NO_LINK},
            Verdict.DEGRADED,
            (
                "a: only a route whose interface has no link into its network lan 10.1.0.0/24: what comes "
                "out of the tunnel for it is lost"
            ),
        ),
    ],
)
def test_a_gateway_that_has_lost_the_way_to_a_network_of_its_own(made, way, homes, verdict, cause):
    health = judged(made, way, replace(AT_HOME, homes=REACHED | homes))
    assert (health.verdict, health.causes) == (verdict, (cause,))


def test_in_route_mode_it_is_the_same(made):
    way = replace(ROUTED, rules=OWN, own=(LAN, LAB), all_own=True)
    lost = dict.fromkeys(REACHED, WayHome.MISSING)
    health = judged(made, way, replace(GOOD, rules=OWN_SEEN, homes=lost))
    assert health.verdict is Verdict.DOWN
    assert len(health.causes) == 1


def without(*kinds):
    return replace(AT_HOME, rules=tuple(seen for seen in OWN_SEEN if seen.rule.kind not in kinds))


def test_rules_that_are_missing(made):
    assert judged(made, HOME, without(RuleKind.BEHIND)).causes == (
        (
            "a: the rules by which its own IPv4 packets pass over those for its networks are not there, or "
            "are others: apply the topology"
        ),
    )
    says = (
        "a: the rules that keep what is for 10.1.0.0/24, 10.1.1.0/24 from following a default route are not "
        "there, or are others: apply the topology"
    )
    health = judged(made, HOME, without(RuleKind.NO_WAY_HOME))
    assert (health.verdict, health.causes) == (Verdict.DEGRADED, (says,))
    lost = replace(without(RuleKind.NO_WAY_HOME), homes=REACHED | {LAN.prefix: WayHome.MISSING})
    assert judged(made, HOME, lost).causes == (
        says,
        (
            "a: no route into its network lan 10.1.0.0/24: what comes out of the tunnel for it follows a "
            "default route, in clear"
        ),
    )
