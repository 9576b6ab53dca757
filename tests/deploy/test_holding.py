"""Tunnels that a plan would end for SAs that cannot come up: which they are, and what plan and apply say."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from netaddr import IPAddress

from ipsecctl.cli._plan import print_plan
from ipsecctl.deploy.holding import doomed, held, left_alone
from ipsecctl.gateway import Device, Facts, KernelView, NotInKernel, Observed, WayOut
from ipsecctl.plan import Change, Disruption, GatewayPlan, Kind, Part, Safety, Wanted, holding, plan_json
from ipsecctl.topology import DataPath

OWN, NEW, PEER, OTHER = (IPAddress(f"192.0.2.{n}") for n in (1, 2, 9, 10))
CHILD = {"local_ts": ["10.1.0.0/24", "fd00:1::/64"], "remote_ts": ["10.2.0.0/24", "fd00:2::/64"]}
FOUR = {"local_ts": ["10.1.0.0/24"], "remote_ts": ["10.2.0.0/24"]}
NO_SIX = Device(ipv6_off="all")


def message(own=OWN, peer=PEER, children=None):
    return {
        "local_addrs": [str(own)],
        "remote_addrs": [str(peer)],
        "children": {"t": CHILD} if children is None else children,
    }


def sa(*children, here=OWN, far=PEER, state="INSTALLED"):
    listed = {f"{n}-1": {"name": n, "uniqueid": "1", "state": state, "spi-in": "1"} for n in children}
    return {
        "t": {
            "uniqueid": "1",
            "state": "ESTABLISHED",
            "local-host": str(here),
            "remote-host": str(far),
            "child-sas": listed,
        }
    }


def plans(grade, *, part=Part.CONNECTION, kind=Kind.CHANGE):
    return (GatewayPlan("gw", (Change("gw", part, "t", kind, reasons=("why",), disruption=grade),)),)


def found(to, sas, *, device=None, way_out=None, grade=Disruption.REKEY, lost=(), path=DataPath.LIBIPSEC):
    facts = Facts(in_kernel=KernelView(device=device or Device()), way_out=way_out or WayOut())
    seen = Observed("gw", "6.1.0", path, {"t": {}}, facts=facts, sas=tuple(sas), not_in_kernel=tuple(lost))
    wanted = Wanted("gw", "top", connections={"t": to}, data_path=path)
    return [o.what for o in doomed(plans(grade), {"gw": wanted}, {"gw": seen}).get("t", ())]


def test_what_can_come_up_is_nobodys_concern():
    assert found(message(), [sa("t")]) == []


def test_routes_that_cannot_be_set_doom_what_carries():
    (what,) = found(message(), [sa("t")], device=NO_SIX)
    assert what.startswith("gw: IPv6 is off on ipsec0")


@pytest.mark.parametrize(
    "case",
    [
        {"grade": Disruption.NONE},
        {"path": DataPath.KERNEL},
        {"to": message(children={"t": FOUR})},  # the change takes IPv6 out: that mends it
        {"to": message(children={"t": FOUR, "six": CHILD})},  # "six" has no SA that could be lost
        {"sas": ()},
        {"sas": [sa("t", state="DELETING")]},
        {"lost": [NotInKernel("t", "t", "1", dead=True)]},  # nothing passes as it is
    ],
)
def test_but_not_what_is_not_touched_or_has_nothing_to_lose(case):
    assert found(**{"to": message(), "sas": [sa("t")], "device": NO_SIX} | case) == []


def test_an_address_that_no_interface_has_dooms_what_runs_by_another():
    lost = WayOut(no_address=frozenset([NEW]))
    (what,) = found(message(own=NEW), [sa("t")], way_out=lost, grade=Disruption.IKE_RESTART)
    assert what.startswith("gw does not have its declared address 192.0.2.2")
    (what,) = found(message(own=NEW), [sa("t")], way_out=lost, path=DataPath.KERNEL)
    assert what.startswith("gw does not have its declared address 192.0.2.2"), "on both data paths"
    assert found(message(own=NEW), [sa("t", here=NEW)], way_out=lost) == [], "that one is dead already"


def test_a_peer_to_which_there_is_no_route_likewise():
    lost = WayOut(no_route={OTHER: "Network is unreachable"})
    assert len(found(message(peer=OTHER), [sa("t")], way_out=lost)) == 1
    assert found(message(peer=OTHER), [sa("t", far=OTHER)], way_out=lost) == []
    assert found(message(), [sa("t")], way_out=lost) == [], "another peer's route"


ASTRAY = WayOut(astray={PEER: (OWN, "wan", "lan")})
BY_LAN = ["gw sends to 192.0.2.9 by lan, and not by wan, which has its address 192.0.2.1"]


def heard(seconds):
    """An SA of the far end's, which has last received something so long ago."""
    seen = sa("t", here=PEER, far=OWN)
    seen["t"]["child-sas"]["t-1"] |= {"use-in": str(seconds)} if seconds is not None else {}
    return seen


def led_astray(there, *, to=None, here=None):
    ends = {
        "gw": Observed(
            *("gw", "6.1.0", DataPath.KERNEL, {"t": {}}),
            facts=Facts(way_out=ASTRAY),
            sas=(sa("t") if here is None else here,),
        ),
        "far": Observed("far", "6.1.0", DataPath.KERNEL, {"t": {}}, sas=there),
    }
    sent = {"gw": to or message(), "far": message(own=PEER, peer=OWN)}
    wanted = {n: Wanted(n, "top", connections={"t": m}, data_path=DataPath.KERNEL) for n, m in sent.items()}
    return [o.what for o in doomed(plans(Disruption.REKEY), wanted, ends).get("t", ())]


@pytest.mark.parametrize("there", [(), (heard(None),), (heard(300),)])
def test_a_way_by_another_interface_dooms_what_would_be_made_anew(there):
    assert led_astray(there) == BY_LAN


def test_but_not_where_what_is_sent_that_way_arrives():
    """It may be meant: two uplinks, or an address on an interface of its own."""
    assert led_astray((heard(2),)) == []
    elsewhere = sa("t", far=OTHER)
    assert led_astray((heard(2),), here=elsewhere) == BY_LAN, "what arrives goes to another address"
    assert led_astray((), to=message(own=NEW)) == [], "the way from the new address is not known"
    assert led_astray((), to=message(peer=OTHER)) == []


@pytest.mark.parametrize(
    ("allowed", "left"), [((), {"t"}), (("t",), set()), (("disturb",), set()), (("remove", "u"), {"t"})]
)
def test_only_what_is_allowed_is_tried(allowed, left):
    assert held({"t": ()}, Safety(allowed=frozenset(allowed))) == left


def doom():
    seen = Observed("gw", "6.1.0", DataPath.LIBIPSEC, {"t": {}}, facts=Facts(), sas=(sa("t"),))
    seen = replace(seen, facts=Facts(in_kernel=KernelView(device=NO_SIX)))
    wanted = Wanted("gw", "top", connections={"t": message()}, data_path=DataPath.LIBIPSEC)
    return doomed(plans(Disruption.REKEY), {"gw": wanted}, {"gw": seen})


def test_the_plan_grades_it_as_what_it_is_and_disturbs_nothing_that_is_held():
    (plan,) = holding(plans(Disruption.REKEY), doom(), {"t"})
    (change,) = plan.changes
    assert change.disruption is Disruption.CHILD_RESTART
    assert change.reasons[1].startswith("held back: new SAs would not come up")
    assert plan.disturbed == {}
    (document,) = plan_json([plan], {})["gateways"]
    assert document["disturbed"] == {}
    assert "sysctl -w net.ipv6.conf.all.disable_ipv6=0" in document["held"]["t"][0]


def test_what_is_allowed_is_graded_likewise_and_counts():
    (plan,) = holding(plans(Disruption.REKEY), doom(), ())
    assert plan.disturbed == {"t": Disruption.CHILD_RESTART}
    assert (plan.held, plan.changes[0].reasons[0]) == ((), "why")
    assert plan.changes[0].reasons[1].startswith("new SAs will hardly come up")
    (plan,) = holding(plans(Disruption.IKE_RESTART), doom(), ())
    assert plan.disturbed == {"t": Disruption.IKE_RESTART}, "never better than it was"


@pytest.mark.parametrize("other", [{"part": Part.SHARED}, {"kind": Kind.REMOVE}])
def test_nothing_else_is_regraded(other):
    (plan,) = holding(plans(Disruption.REKEY, **other), doom(), ())
    assert plan.changes[0].disruption is Disruption.REKEY


def test_who_is_left_alone_is_told_why_and_nothing_more():
    assert left_alone(["t"]) == {"t": "new SAs would not come up"}


def test_a_held_tunnel_is_told_once_with_how_that_is_overruled():
    one = holding(plans(Disruption.REKEY), doom(), {"t"})
    far = replace(one[0], gateway="far", changes=tuple(replace(c, gateway="far") for c in one[0].changes))
    screen = io.StringIO()
    print_plan([*one, far], {}, screen)
    said = screen.getvalue()
    assert (said.count("--allow t tries it all the same."), said.count("IPv6 is off on ipsec0")) == (1, 1)
    assert max(map(len, said.splitlines()[:-1])) < 140
