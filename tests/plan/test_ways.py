"""Interfaces and routes in a plan: what changes, why, whose it is, and what stands in the way."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from netaddr import IPAddress, IPNetwork

from ipsecctl.desired import (
    HOLDING_TABLE,
    INTO_METRIC,
    ROUTES_FILE,
    Interface,
    InterfaceKind,
    OwnNetwork,
    Route,
    RouteKind,
    Rule,
    own_rules,
)
from ipsecctl.gateway import (
    Facts,
    FileSeen,
    Link,
    NewFile,
    Observed,
    Record,
    RouteSeen,
    RuleSeen,
    WayHome,
    WaysSeen,
)
from ipsecctl.plan import (
    Conflict,
    Disruption,
    Kind,
    Part,
    Wanted,
    file_entry,
    interface_text,
    plan_gateway,
)
from ipsecctl.plan.stages import disruption
from ipsecctl.topology import DataPath

FAR = IPNetwork("10.2.0.0/24")
IX = Interface("ix-t", 0x2A, 1438, (IPNetwork("192.0.2.1/30"),), "t")
INTO = Route(FAR, "t", RouteKind.INTO, "ix-t", INTO_METRIC, IPAddress("10.1.0.1"))
HOLDING = Route(FAR, "t")
LINK = Link("ix-t", "xfrm", 0x2A, 1438, True, IX.addresses, ours=True)
SEEN_INTO = RouteSeen(FAR, "unicast", "ix-t", INTO_METRIC, IPAddress("10.1.0.1"), ours=True)
SEEN_HOLDING = RouteSeen(FAR, "unreachable", "", HOLDING.metric, ours=True)
FILE = NewFile(ROUTES_FILE, b"routes", 0o644)
WANTED = Wanted("gw", "top", files={ROUTES_FILE: FILE}, interfaces={"ix-t": IX}, routes=(INTO, HOLDING))


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def observed(*links, routes=(), recorded=True, interfaces=None, **facts):
    """Return what is seen on a gateway; ``recorded`` says whether the wanted state was applied before."""
    record = None
    files = {}
    if recorded:
        files = {ROUTES_FILE: FileSeen(sha256(FILE.content), FILE.mode)}
        record = Record(b"k" * 32, topology="top")
        digest = record.digest("file", file_entry(files[ROUTES_FILE].sha256, FILE.mode))
        texts = {"ix-t": interface_text(IX)} if interfaces is None else interfaces
        record = replace(record, files={ROUTES_FILE: digest}, interfaces=texts)
    ways = WaysSeen({link.name: link for link in links}, frozenset(routes))
    return Observed(
        "gw", "6.1.0", DataPath.KERNEL, {}, facts=Facts(files=files, record=record, ways=ways, **facts)
    )


def plan(seen, wanted=WANTED):
    return plan_gateway(wanted, seen)


def ways(made):
    return [c for c in made.changes if c.part in (Part.INTERFACE, Part.ROUTE)]


def only(made):
    (change,) = ways(made)
    return change


AS_WANTED = observed(LINK, routes=[SEEN_INTO, SEEN_HOLDING])


def test_nothing_to_do():
    assert plan(AS_WANTED).changes == ()
    assert plan(AS_WANTED).conflicts == ()


def test_a_bare_gateway():
    made = plan(observed(recorded=False))
    assert [(c.part, c.kind, c.name, c.reasons) for c in ways(made)] == [
        (Part.INTERFACE, Kind.CREATE, "ix-t", ("declared in the topology",)),
        (Part.ROUTE, Kind.CREATE, "10.2.0.0/24", ("declared in the topology",)),
        (Part.ROUTE, Kind.CREATE, "10.2.0.0/24 dev ix-t metric 50", ("declared in the topology",)),
    ]
    assert dict(ways(made)[0].after) == {
        "if_id": "0x2a",
        "mtu": "1438",
        "addresses": "192.0.2.1/30",
        "state": "up",
    }
    assert not made.disturbed


def test_gone():
    change, *routes = ways(plan(observed()))
    assert (change.kind, change.reasons) == (Kind.CREATE, ("it was applied and is no longer there",))
    assert {c.reasons for c in routes} == {("it was applied and is no longer there",)}


@pytest.mark.parametrize(
    ("changes", "field", "before", "after"),
    [
        ({"mtu": 1500}, "mtu", "1500", "1438"),
        ({"up": False}, "state", "down", "up"),
        ({"addresses": ()}, "addresses", "", "192.0.2.1/30"),
        ({"addresses": (IPNetwork("192.0.2.9/30"),)}, "addresses", "192.0.2.9/30", "192.0.2.1/30"),
    ],
)
def test_altered_by_hand_and_mended_in_place(changes, field, before, after):
    change = only(plan(observed(replace(LINK, **changes), routes=[SEEN_INTO, SEEN_HOLDING])))
    assert (change.part, change.kind, change.disruption) == (Part.INTERFACE, Kind.CHANGE, Disruption.NONE)
    assert change.reasons == ("altered on the gateway by hand since the last apply",)
    assert (change.before, change.after) == (((field, before),), ((field, after),))


def test_a_new_mtu_is_a_change_of_the_topology():
    wanted = replace(WANTED, interfaces={"ix-t": replace(IX, mtu=1400)})
    change = only(plan(AS_WANTED, wanted))
    assert change.reasons == ("the topology or what it refers to has changed",)
    cut = plan(observed(LINK, routes=[SEEN_INTO, SEEN_HOLDING], interfaces={"ix-t": ""}), wanted)
    assert only(cut).reasons == ("an earlier apply was cut off here",)


def test_another_if_id_makes_the_interface_and_its_routes_anew():
    wanted = replace(WANTED, interfaces={"ix-t": replace(IX, if_id=7)})
    interface, route = ways(plan(AS_WANTED, wanted))
    assert (interface.kind, interface.before, interface.after) == (
        Kind.CHANGE,
        (("if_id", "0x2a"),),
        (("if_id", "0x7"),),
    )
    assert "made anew" in interface.reasons[1]
    assert (route.kind, route.name) == (Kind.CHANGE, "10.2.0.0/24 dev ix-t metric 50")


def test_no_longer_declared():
    made = plan(AS_WANTED, Wanted("gw", "top"))
    assert [(c.kind, c.part, c.name) for c in ways(made)] == [
        (Kind.REMOVE, Part.INTERFACE, "ix-t"),
        (Kind.REMOVE, Part.ROUTE, "10.2.0.0/24"),
        (Kind.REMOVE, Part.ROUTE, "10.2.0.0/24 dev ix-t metric 50"),
    ]
    # Without a record nobody knows that they are of this topology.
    assert plan(observed(LINK, routes=[SEEN_INTO], recorded=False), Wanted("gw", "top")).changes == ()


def test_routes_with_another_metric_or_source():
    moved = replace(SEEN_INTO, metric=60)
    created, removed = ways(plan(observed(LINK, routes=[moved, SEEN_HOLDING])))
    assert (created.kind, created.name) == (Kind.CREATE, "10.2.0.0/24 dev ix-t metric 50")
    assert (removed.kind, removed.name) == (Kind.REMOVE, "10.2.0.0/24 dev ix-t metric 60")
    change = only(plan(observed(LINK, routes=[replace(SEEN_INTO, source=None), SEEN_HOLDING])))
    assert (change.kind, change.before, change.after) == (Kind.CHANGE, (), (("source", "10.1.0.1"),))


NOWHERE = Interface("ix-hold", 0, 65535, (IPNetwork("10.1.0.1/32"),), "", InterfaceKind.DUMMY)
TO_NOWHERE = Route(FAR, "t", RouteKind.HOLDING, "ix-hold", source=IPAddress("10.1.0.1"), mtu=1400)
NOWHERE_SEEN = Link("ix-hold", "dummy", None, 65535, True, NOWHERE.addresses, ours=True)
TO_NOWHERE_SEEN = RouteSeen(
    FAR, "unicast", "ix-hold", HOLDING.metric, IPAddress("10.1.0.1"), ours=True, mtu=1400
)
BY_POLICY = replace(WANTED, interfaces={"ix-hold": NOWHERE}, routes=(TO_NOWHERE,))


def test_an_interface_to_nowhere_and_its_routes():
    made = plan(observed(interfaces={}, recorded=False), BY_POLICY)
    assert [(c.part, c.kind, c.name, dict(c.after)) for c in ways(made)] == [
        (Part.INTERFACE, Kind.CREATE, "ix-hold", {"mtu": "65535", "addresses": "10.1.0.1/32", "state": "up"}),
        (
            Part.ROUTE,
            Kind.CREATE,
            f"10.2.0.0/24 dev ix-hold metric {HOLDING.metric}",
            {"source": "10.1.0.1", "mtu": "1400"},
        ),
    ]
    recorded = {"ix-hold": interface_text(NOWHERE)}
    assert (
        plan(observed(NOWHERE_SEEN, routes=[TO_NOWHERE_SEEN], interfaces=recorded), BY_POLICY).changes == ()
    )
    wider = observed(NOWHERE_SEEN, routes=[replace(TO_NOWHERE_SEEN, mtu=0)], interfaces=recorded)
    change = only(plan(wider, BY_POLICY))
    assert (change.kind, dict(change.before), dict(change.after)) == (
        Kind.CHANGE,
        {},
        {"mtu": "1400"},
    )


def test_from_charons_data_path_to_the_kernels_a_held_prefix_gets_the_other_route():
    removed, created = [
        c
        for c in ways(plan(observed(NOWHERE_SEEN, routes=[SEEN_HOLDING]), BY_POLICY))
        if c.part is Part.ROUTE
    ]
    assert (created.kind, created.name) == (Kind.CREATE, f"10.2.0.0/24 dev ix-hold metric {HOLDING.metric}")
    assert (removed.kind, removed.name) == (Kind.REMOVE, "10.2.0.0/24")


def test_a_tunnels_interface_that_once_had_its_name_is_made_anew():
    once = replace(LINK, name="ix-hold")
    interface, *_ = ways(plan(observed(once), BY_POLICY))
    assert (interface.name, interface.kind) == ("ix-hold", Kind.CHANGE)
    assert "made anew" in interface.reasons[1]
    assert ("if_id", "0x2a") in interface.before


# -------------------------------------------------------------------------------------------------- conflicts


def conflicts(*links, wanted=WANTED, **more):
    return [conflict.summary for conflict in plan(observed(*links, **more), wanted).conflicts]


@pytest.mark.parametrize("link", [replace(LINK, ours=False), Link("ix-t"), Link("ix-t", "dummy")])
def test_an_interface_of_that_name_is_somebody_elses(link):
    made = plan(observed(link, recorded=False))
    assert "gw: there is an interface ix-t that ipsecctl did not make" in [c.summary for c in made.conflicts]
    assert not made.of(Part.INTERFACE)


def test_an_if_id_that_somebody_else_uses():
    other = Link("vti9", "xfrm", 0x2A, 1500, True)
    assert conflicts(other, recorded=False) == ["gw: vti9, which ipsecctl did not make, has if_id 0x2a"]
    policies = {"if_ids": frozenset({0x2A})}
    said = ["gw: IPsec policies that are not ipsecctl's use if_id 0x2a"]
    assert conflicts(recorded=False, **policies) == said
    assert conflicts(interfaces={}, **policies) == said
    # charon's own, that outlived the interface
    assert conflicts(**policies) == []
    assert conflicts(interfaces={"ix-t": ""}, **policies) == []
    # a tunnel that was renamed and kept its if_id
    assert (
        conflicts(replace(LINK, name="ix-old"), interfaces={"ix-old": interface_text(IX)}, **policies) == []
    )


@pytest.mark.parametrize(
    ("metric", "stands"), [(0, True), (INTO_METRIC, True), (INTO_METRIC + 1, False), (1024, False)]
)
def test_a_route_of_somebody_elses(metric, stands):
    other = RouteSeen(FAR, "unicast", "eth0", metric, via="192.0.2.9")
    said = conflicts(LINK, routes=[SEEN_INTO, SEEN_HOLDING, other])
    assert bool(said) is stands
    if stands:
        assert "a route to 10.2.0.0/24 that ipsecctl did not make" in said[0]
        assert "goes via 192.0.2.9 (eth0), not into the tunnel 't'" in said[0]
    # To a tunnel in policy mode it does no harm.
    assert conflicts(routes=[other], wanted=Wanted("gw", "top", routes=(HOLDING,))) == []


def test_ipsec0_where_the_kernel_is_to_carry_esp():
    device = Link("ipsec0")
    assert conflicts(device, LINK, routes=[SEEN_INTO, SEEN_HOLDING]) == [
        "gw: there is an interface ipsec0, and the kernel is to carry ESP"
    ]
    libipsec = replace(observed(device), data_path=DataPath.LIBIPSEC)
    assert plan(libipsec, Wanted("gw", "top", data_path=DataPath.LIBIPSEC)).conflicts == ()


def test_what_a_gateway_lacks_stands_among_the_conflicts():
    lack = Conflict("gw: it has no xfrm interfaces", "It takes another kernel.")
    assert plan_gateway(WANTED, AS_WANTED, lacking=[lack]).conflicts == (lack,)


CONNECTION = {"t": {"children": {"t": {"remote_ts": ["10.2.0.0/24[tcp/104]"]}}}}


@pytest.mark.parametrize(
    ("rules", "stops"),
    [
        (["-P FORWARD DROP"], True),
        (["-P FORWARD ACCEPT"], False),
        (["-P FORWARD ACCEPT", "-A FORWARD -j DROP"], True),
        (["-A FORWARD -j REJECT --reject-with icmp-port-unreachable"], True),
        (["-A FORWARD -s 10.9.0.0/16 -j DROP"], False),
        (["-P INPUT DROP"], False),
        (["-P FORWARD DROP", "-A FORWARD -m policy --dir in --pol ipsec -j ACCEPT"], False),
        (["-P FORWARD DROP", "-A FORWARD -o ix-+ -j ACCEPT"], False),
        (["-P FORWARD DROP", "-A FORWARD -d 10.2.0.0/16 -j ACCEPT"], False),
        (["-P FORWARD DROP", "-A FORWARD -d 10.3.0.0/16 -j ACCEPT"], True),
        (["-P FORWARD DROP", "-A FORWARD -p tcp -j ACCEPT"], True),
        (["garbage"], False),
    ],
)
def test_rules_of_iptables_legacy_in_the_way(rules, stops):
    wanted = Wanted("gw", "top", connections=CONNECTION)
    legacy = tuple(f"ip filter {rule}" for rule in rules)
    found = [c for c in plan(observed(legacy_rules=legacy), wanted).conflicts if "legacy" in c.summary]
    assert bool(found) is stops
    six = tuple(f"ip6 filter {rule}" for rule in rules)
    assert not [c for c in plan(observed(legacy_rules=six), wanted).conflicts if "legacy" in c.summary]


@pytest.mark.parametrize(
    "wanted", [Wanted("gw", "top", connections=CONNECTION), replace(WANTED, connections=CONNECTION)]
)
def test_the_hint_about_legacy_rules_mends_it(wanted):
    rule = "ip filter -P FORWARD DROP"
    (conflict,) = [c for c in plan(observed(legacy_rules=(rule,)), wanted).conflicts if "legacy" in c.summary]
    command = conflict.hint.partition("(")[2].partition(" and ")[0]
    added = command.replace("iptables-legacy -I", "ip filter -A")
    assert not [
        c for c in plan(observed(legacy_rules=(rule, added)), wanted).conflicts if "legacy" in c.summary
    ]


@pytest.mark.parametrize("key", ["if_id_in", "if_id_out", "mark_out", "mode", "hw_offload"])
def test_what_the_kernel_was_given_for_good_cannot_stand_beside_the_old(key):
    def message(**child):
        return {"children": {"t": {"start_action": "trap", **child}}}

    assert disruption(message(), message(**{key: "7"})) is Disruption.CHILD_RESTART


def test_somebody_elses_interface_of_the_name_of_the_one_to_nowhere():
    (conflict,) = plan(observed(replace(NOWHERE_SEEN, ours=False)), BY_POLICY).conflicts
    assert conflict.summary == "gw: there is an interface ix-hold that ipsecctl did not make"
    assert conflict.hint == "Remove it (ip link delete ix-hold)."


# ---------------------------------------------------------------------------------------------- our own table

NEAR = IPNetwork("10.2.0.128/25")
OWN_TABLE = (
    Route(FAR, "t", RouteKind.HOLDING, "ix-hold", 0, mtu=1438, table=HOLDING_TABLE),
    Route(NEAR, "", RouteKind.PASSED_ON, metric=0, table=HOLDING_TABLE),
)
POLICY = Wanted("gw", "top", files={ROUTES_FILE: FILE}, routes=OWN_TABLE, rules=(Rule(4), Rule(6)))
HELD = RouteSeen(FAR, interface="ix-hold", mtu=1438, ours=True)
PASSED = RouteSeen(NEAR, "throw", ours=True)
RULES = tuple(RuleSeen(family, 219, "not iif lo table 213", 213, True, Rule(family)) for family in (4, 6))
CHARONS = RuleSeen(4, 220, "table 220", 220)


def in_policy_mode(held=(HELD, PASSED), rules=(*RULES, CHARONS), strangers=(), **facts):
    seen = observed(**facts)
    ways = WaysSeen(held={route.prefix: route for route in held}, rules=rules, strangers=strangers)
    return replace(seen, facts=replace(seen.facts, ways=ways))


def own(made):
    assert not made.conflicts
    return [(c.part, c.kind, c.name, c.reasons[0]) for c in made.changes if c.part is not Part.FILE]


LOST = "it was applied and is no longer there"
BY_HAND = "altered on the gateway by hand since the last apply"
UNDECLARED = "it bears our mark, and was not applied: made by hand"
GONE = "no longer in the topology"


def test_what_our_table_and_rules_hold():
    assert plan(in_policy_mode(), POLICY).changes == ()
    declared = "declared in the topology"
    assert own(plan(observed(recorded=False), POLICY)) == [
        (Part.ROUTE, Kind.CREATE, "10.2.0.0/24 table 213", declared),
        (Part.ROUTE, Kind.CREATE, "10.2.0.128/25 table 213", declared),
        (Part.RULE, Kind.CREATE, "ipv4", declared),
        (Part.RULE, Kind.CREATE, "ipv6", declared),
    ]
    assert own(plan(in_policy_mode(), Wanted("gw", "top"))) == [
        (Part.ROUTE, Kind.REMOVE, "10.2.0.0/24 table 213", GONE),
        (Part.ROUTE, Kind.REMOVE, "10.2.0.128/25 table 213", GONE),
        (Part.RULE, Kind.REMOVE, "ipv4", GONE),
        (Part.RULE, Kind.REMOVE, "ipv6", GONE),
    ]
    # Without a record nobody knows that they are of this topology.
    assert own(plan(in_policy_mode(recorded=False), Wanted("gw", "top"))) == []


@pytest.mark.parametrize(
    ("seen", "change"),
    [
        (in_policy_mode(rules=RULES[1:]), (Part.RULE, Kind.CREATE, "ipv4", LOST)),
        (
            in_policy_mode(rules=(replace(RULES[0], rule=None), RULES[1])),
            (Part.RULE, Kind.CHANGE, "ipv4", BY_HAND),
        ),
        (
            in_policy_mode(rules=(*RULES, replace(RULES[0], priority=5, rule=None))),
            (Part.RULE, Kind.CHANGE, "ipv4", BY_HAND),
        ),
        (in_policy_mode(held=[PASSED]), (Part.ROUTE, Kind.CREATE, "10.2.0.0/24 table 213", LOST)),
        (
            in_policy_mode(held=[replace(HELD, mtu=1500), PASSED]),
            (Part.ROUTE, Kind.CHANGE, "10.2.0.0/24 table 213", BY_HAND),
        ),
        (
            in_policy_mode(held=[replace(HELD, kind="throw", interface="", mtu=0), PASSED]),
            (Part.ROUTE, Kind.CHANGE, "10.2.0.0/24 table 213", BY_HAND),
        ),
        (
            in_policy_mode(held=[HELD, PASSED, replace(PASSED, prefix=IPNetwork("10.9.0.0/24"))]),
            (Part.ROUTE, Kind.REMOVE, "10.9.0.0/24 table 213", UNDECLARED),
        ),
    ],
)
def test_what_was_altered_in_our_table_or_rules_is_put_right(seen, change):
    assert own(plan(seen, POLICY)) == [change]


@pytest.mark.parametrize(
    ("seen", "says", "hint"),
    [
        (
            in_policy_mode(strangers=(RouteSeen(FAR), RouteSeen(NEAR))),
            "gw: in routing table 213 there is a route that ipsecctl did not make, to 10.2.0.0/24 and 1 more",
            "another table",
        ),
        (
            in_policy_mode(rules=(*RULES, RuleSeen(4, 219, "fwmark 0x1 table 77", 77))),
            (
                "gw: a rule for IPv4 that ipsecctl did not make ('219: fwmark 0x1 table 77') has the "
                "priority of the one that holds what is for tunnels"
            ),
            "another priority than 219",
        ),
        (
            in_policy_mode(rules=(*RULES, RuleSeen(6, 100, "table 213", 213))),
            "gw: a rule for IPv6 that ipsecctl did not make ('100: table 213') looks up routing table 213",
            "use another table",
        ),
        (
            in_policy_mode(rules=(*RULES, RuleSeen(4, 50, "table 220", 220))),
            (
                "gw: charon's routes are looked up with priority 50, before those that hold what is for "
                "tunnels (219)"
            ),
            "routing_table_prio",
        ),
    ],
)
def test_our_table_or_priority_taken_by_somebody_else(seen, says, hint):
    made = plan(seen, POLICY)
    (conflict,) = made.conflicts
    assert conflict.summary == says
    assert hint in conflict.hint
    assert made.changes == ()
    # Where we want no rules it is none of our business.
    assert plan(seen).conflicts == ()


def test_others_rules_elsewhere_are_none_of_ours():
    rules = (*RULES, CHARONS, RuleSeen(4, 100, "fwmark 0x1 table 77", 77), RuleSeen(6, 1000, "l3mdev"))
    assert plan(in_policy_mode(rules=rules), POLICY).conflicts == ()


# ------------------------------------------------------------------------------------------- its own networks

LAN = OwnNetwork(IPNetwork("10.1.0.0/24"), "lan")
OWN = own_rules([LAN])
HOME = Wanted("gw", "top", files={ROUTES_FILE: FILE}, rules=OWN, own=(LAN,))
OWN_SEEN = {rule: RuleSeen(4, rule.priority, f"{rule.kind}", 0, True, rule, rule.prefix) for rule in OWN}
OWN_SEEN = {
    rule: replace(seen, says="nop") if rule.prefix is None else seen for rule, seen in OWN_SEEN.items()
}
LEAP, TO_LAN = "ipv4 own packets", "ipv4 to 10.1.0.0/24"


def at_home(*rules, home=WayHome.THERE, recorded=True):
    seen = observed(recorded=recorded, interfaces={})
    return replace(seen, facts=replace(seen.facts, ways=WaysSeen(rules=rules, homes={LAN.prefix: home})))


def test_rules_for_own_networks():
    assert plan(at_home(*OWN_SEEN.values()), HOME).changes == ()
    created = own(plan(at_home(recorded=False), HOME))
    assert created == [
        (Part.RULE, Kind.CREATE, LEAP, "declared in the topology"),
        (Part.RULE, Kind.CREATE, TO_LAN, "declared in the topology"),
    ]
    removed = own(plan(at_home(*OWN_SEEN.values()), Wanted("gw", "top")))
    assert removed == [(Part.RULE, Kind.REMOVE, LEAP, GONE), (Part.RULE, Kind.REMOVE, TO_LAN, GONE)]


@pytest.mark.parametrize("missing", OWN)
def test_one_of_them_that_is_missing(missing):
    left = [seen for rule, seen in OWN_SEEN.items() if rule != missing]
    assert own(plan(at_home(*left), HOME)) == [(Part.RULE, Kind.CHANGE, missing.group, BY_HAND)]


def test_one_too_many_and_one_that_is_another():
    stray = RuleSeen(4, 216, "dst 10.1.0.0 dstlen 24 table 99", 99, True, None, LAN.prefix)
    assert own(plan(at_home(*OWN_SEEN.values(), stray), HOME)) == [(Part.RULE, Kind.CHANGE, TO_LAN, BY_HAND)]
    theirs = replace(stray, ours=False, priority=300)
    assert plan(at_home(*OWN_SEEN.values(), theirs), HOME).changes == ()
    old = replace(stray, prefix=IPNetwork("10.9.0.0/24"))
    assert own(plan(at_home(*OWN_SEEN.values(), old), HOME)) == [
        (Part.RULE, Kind.REMOVE, "ipv4 to 10.9.0.0/24", UNDECLARED)
    ]


@pytest.mark.parametrize(
    ("home", "says"),
    [
        (WayHome.MISSING, "gw: no route but a default one into its network lan 10.1.0.0/24"),
        (WayHome.NO_LINK, "gw: only a route whose interface has no link into its network lan 10.1.0.0/24"),
    ],
)
def test_a_network_without_a_way_home_is_a_note_and_no_refusal(home, says):
    made = plan(at_home(*OWN_SEEN.values(), home=home), HOME)
    assert (made.changes, made.conflicts) == ((), ())
    (note,) = made.notes
    assert note.summary == f"{says}: what tunnels bring for it does not arrive"
    assert "one_armed: true" in note.hint
    assert plan(at_home(*OWN_SEEN.values()), HOME).notes == ()
    assert plan(at_home(home=home), replace(HOME, rules=(), own=())).notes == ()  # it is one-armed
