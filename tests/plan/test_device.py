"""charon's own data path in a plan: its device, its rule, its routes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from netaddr import IPAddress, IPNetwork

from ipsecctl.gateway import Device, Facts, KernelView, NotInKernel, Observed, Record, WayOut
from ipsecctl.plan import Disruption, Kind, Part, Wanted, plan_gateway, rule_of, unrouted
from ipsecctl.topology import DataPath

CHILD = {"local_ts": ["10.1.0.0/24"], "remote_ts": ["10.2.0.0/24", "fd00:2::/64"], "start_action": "trap"}
MESSAGE = {"version": "2", "children": {"t": CHILD}}
FAR = frozenset(map(IPNetwork, CHILD["remote_ts"]))
HOW = ("systemctl", "restart", "strongswan")


def observed(device, routes=FAR, message=MESSAGE, *, lost=(), others=(), restart=HOW, sas=1):
    record = Record.fresh()
    digests = {"t": record.digest("connection", message)}
    record = Record(record.key, "top", connections=digests, messages={"t": message})
    facts = Facts(record=record, restart_command=restart, in_kernel=KernelView(routes=routes, device=device))
    loaded = {"t": {}, **{name: {} for name in others}}
    return Observed(
        "gw", "6.1.0", DataPath.LIBIPSEC, loaded, facts=facts, ike_sas=sas, not_in_kernel=tuple(lost)
    )


def plan(seen, message=MESSAGE):
    wanted = Wanted("gw", "top", connections={"t": message}, data_path=DataPath.LIBIPSEC)
    return plan_gateway(wanted, seen)


def test_with_all_in_order_there_is_nothing_to_do():
    assert plan(observed(Device())).changes == ()
    assert plan(observed(None)).changes == ()


def test_rules_of_the_families_that_tunnels_have():
    made = plan(observed(Device(unruled=frozenset({4, 6}), tables=((6, 210),))))
    assert [change.name for change in made.changes] == [
        "rule ipv4 220 lookup 220",
        "rule ipv6 220 lookup 210",
    ]
    assert [rule_of(change) for change in made.changes] == [("4", "220", "220"), ("6", "220", "210")]
    assert made.disturbed == {}
    four = {**MESSAGE, "children": {"t": {**CHILD, "remote_ts": ["10.2.0.0/24"]}}}
    assert len(plan(observed(Device(unruled=frozenset({6})), message=four), four).changes) == 0


def test_a_device_that_is_down_is_set_up_and_nothing_else():
    lost = NotInKernel("t", "t", "c0ffee01", routes=("10.2.0.0/24",), device="down")
    made = plan(observed(Device(up=False), frozenset(), lost=[lost]))
    (change,) = made.changes
    assert (change.part, change.name, rule_of(change)) == (Part.DEVICE, "ipsec0", None)
    assert made.disturbed == {}


@pytest.mark.parametrize("routes", [frozenset(), FAR - {IPNetwork("fd00:2::/64")}])
def test_a_trap_without_its_routes_is_set_anew(routes):
    made = plan(observed(Device(), routes))
    assert made.disturbed == {"t": Disruption.CHILD_RESTART}
    assert "routes through ipsec0 are not there" in made.changes[0].reasons[0]
    waits = {**MESSAGE, "children": {"t": {**CHILD, "start_action": "none"}}}
    assert plan(observed(Device(), routes, waits), waits).changes == (), "it has routes with its SAs only"


def test_a_network_that_is_added_behind_the_far_end_has_no_route_yet_and_breaks_nothing():
    more = {**MESSAGE, "children": {"t": {**CHILD, "remote_ts": [*CHILD["remote_ts"], "10.3.0.0/24"]}}}
    assert plan(observed(Device()), more).disturbed == {"t": Disruption.REKEY}
    lost = plan(observed(Device(), FAR - {IPNetwork("fd00:2::/64")}), more)
    assert lost.disturbed == {"t": Disruption.CHILD_RESTART}, "a route that was there is gone"


def test_an_end_that_is_to_call_has_no_traps_yet():
    waits = {**MESSAGE, "children": {"t": {**CHILD, "start_action": "none"}}}
    assert plan(observed(Device(), frozenset(), waits)).disturbed == {"t": Disruption.REKEY}


def test_a_wider_route_leads_there_too():
    assert plan(observed(Device(), frozenset(map(IPNetwork, ("10.0.0.0/8", "fd00::/16"))))).changes == ()


GONE = Device(there=False, up=False)


def test_for_a_device_that_is_gone_charon_is_restarted_though_it_has_sas():
    made = plan(observed(GONE))
    charon = [change for change in made.changes if change.part is Part.CHARON]
    assert [change.name for change in charon] == ["restart"]
    assert made.restart_for == ()
    assert not made.of(Part.DEVICE)


@pytest.mark.parametrize("how", [{"others": ["theirs"]}, {"restart": ()}])
def test_but_not_where_somebody_else_is_in_it_or_nobody_knows_how(how):
    made = plan(observed(GONE, **how))
    assert made.of(Part.CHARON) == ()
    assert made.restart_for == ("its device ipsec0, which is gone",)


def test_on_the_kernels_data_path_there_is_none():
    seen = observed(GONE)
    wanted = Wanted("gw", "top", connections={"t": MESSAGE}, data_path=DataPath.KERNEL)
    assert unrouted(wanted, seen) == frozenset()
    made = plan_gateway(wanted, seen)
    assert made.of(Part.CHARON) + made.of(Part.DEVICE) == ()


def test_sas_that_an_unloaded_connection_has_left_are_ended_and_others_stay():
    record = Record(Record.fresh().key, "top", connections={"old": "", "gone": ""})
    seen = Observed("gw", "6.1.0", DataPath.KERNEL, {}, facts=Facts(record=record))
    made = plan_gateway(Wanted("gw", "top"), replace(seen, sa_names=frozenset({"old", "theirs"})))
    (change,) = made.changes
    assert (change.part, change.name, change.kind) == (Part.CONNECTION, "old", Kind.REMOVE)
    assert "still has SAs of it" in change.reasons[0]
    assert plan_gateway(Wanted("gw", "top"), seen).changes == ()


DUAL = {"version": "2", "children": {"t": {**CHILD, "local_ts": ["10.1.0.0/24", "fd00:1::/64"]}}}
NO_SIX = Device(ipv6_off="all")
LOST_SIX = NotInKernel("t", "t", "c0ffee01", routes=("fd00:2::/64",), dead=False)
INSTALLED = {"t": {"child-sas": {"t-1": {"name": "t", "state": "INSTALLED", "spi-in": "c0ffee01"}}}}


ONLY_FOUR = FAR - {IPNetwork("fd00:2::/64")}


def dual(device, *, lost=LOST_SIX, sas=(INSTALLED,), routes=ONLY_FOUR):
    return replace(observed(device, routes, DUAL, lost=(lost,) if lost else ()), sas=sas)


def test_routes_that_can_come_back_are_brought_back():
    made = plan(dual(Device()), DUAL)
    assert (made.disturbed, made.notes) == ({"t": Disruption.CHILD_RESTART}, ())


def test_sas_are_not_ended_for_routes_that_cannot_come_back():
    seen = dual(NO_SIX)
    made = plan(seen, DUAL)
    assert (made.changes, made.disturbed) == ((), {})
    (note,) = made.notes
    assert note.summary.startswith("gw: IPv6 is off on ipsec0")
    assert "sysctl -w net.ipv6.conf.all.disable_ipv6=0" in note.hint
    wanted = Wanted("gw", "top", connections={"t": DUAL}, data_path=DataPath.LIBIPSEC)
    assert unrouted(wanted, seen) == frozenset(), "nor does who carries the plan out"


def test_the_note_is_there_without_an_sa_and_not_where_routes_are_whole():
    assert len(plan(dual(NO_SIX, lost=None, sas=()), DUAL).notes) == 1
    assert plan(dual(NO_SIX, lost=None, sas=()), DUAL).changes == ()
    assert plan(dual(NO_SIX, lost=None, routes=FAR), DUAL).notes == ()


def test_a_child_of_its_own_for_ipv6_that_is_dead_keeps_nothing_from_being_mended():
    four = {**CHILD, "remote_ts": ["10.2.0.0/24"]}
    six = {**CHILD, "local_ts": ["fd00:1::/64"], "remote_ts": ["fd00:2::/64"]}
    both = {"version": "2", "children": {"t": four, "six": six}}
    dead = NotInKernel("t", "six", "c0ffee02", routes=("fd00:2::/64",))
    sas = {"t": {"child-sas": {name: {"name": name, "state": "INSTALLED"} for name in ("t", "six")}}}
    only_six = replace(observed(NO_SIX, frozenset({IPNetwork("10.2.0.0/24")}), both, lost=[dead]), sas=(sas,))
    assert plan(only_six, both).disturbed == {}
    lost = [dead, NotInKernel("t", "t", "c0ffee01", routes=("10.2.0.0/24",))]
    all_lost = replace(observed(NO_SIX, frozenset(), both, lost=lost), sas=(sas,))
    assert plan(all_lost, both).disturbed == {"t": Disruption.CHILD_RESTART}


def test_a_gateway_without_a_way_to_its_peers_has_a_note():
    message = {**MESSAGE, "local_addrs": ["192.0.2.1"], "remote_addrs": ["192.0.2.2"]}
    seen = observed(Device(), message=message)
    lost = WayOut({IPAddress("192.0.2.2"): "Network is unreachable"}, frozenset([IPAddress("192.0.2.1")]))
    made = plan(replace(seen, facts=replace(seen.facts, way_out=lost)), message)
    assert [note.summary.partition(":")[0] for note in made.notes] == [
        "gw does not have its declared address 192.0.2.1",
        "gw has no route to 192.0.2.2 (Network is unreachable)",
    ]
    assert made.changes == ()


def test_a_way_by_another_interface_is_a_note_until_there_is_an_sa():
    own, peer = "192.0.2.1", "192.0.2.2"
    message = {**MESSAGE, "local_addrs": [own], "remote_addrs": [peer]}
    astray = WayOut(astray={IPAddress(peer): (IPAddress(own), "wan", "lan")})
    seen = observed(Device(), message=message)
    seen = replace(seen, sas=(), facts=replace(seen.facts, way_out=astray))
    assert [note.summary for note in plan(seen, message).notes] == [
        "gw sends to 192.0.2.2 by lan, and not by wan, which has its address 192.0.2.1"
    ]
    for state, notes in (("ESTABLISHED", 0), ("CONNECTING", 1)):
        sas = ({"t": {"state": state, "remote-host": peer, "child-sas": {}}},)
        assert len(plan(replace(seen, sas=sas), message).notes) == notes


def test_what_charon_does_not_have_yet_is_named_before_it_fails():
    made = plan(replace(dual(NO_SIX, lost=None, sas=()), connections={}), DUAL)
    assert [change.kind for change in made.changes] == [Kind.CREATE]
    assert len(made.notes) == 1
