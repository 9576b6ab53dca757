"""One batch after the other on made-up gateways: what waits for its turn, what goes back, who hangs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

import ipsecctl.deploy.turns as turning
from ipsecctl.deploy import renewal
from ipsecctl.deploy.carry import Carrier
from ipsecctl.deploy.doubts import doubts, obstacles
from ipsecctl.deploy.gate import carrying_before, new_tunnels
from ipsecctl.deploy.outcome import Reporter
from ipsecctl.deploy.prepare import Prepared
from ipsecctl.errors import ViciRefused
from ipsecctl.gateway import Facts, Observed, Obstacle, Record, WayOut
from ipsecctl.health import astray_obstacles, declare
from ipsecctl.plan import Change, Disruption, GatewayPlan, Kind, Part, Wanted
from ipsecctl.topology import DataPath, load_text

OLD = {"proposals": ["aes128-sha256-ecp256"], "children": {"t": {"esp_proposals": ["aes128"]}}}
NEW = {"proposals": ["aes256-sha384-ecp384"], "children": {"t": {"esp_proposals": ["aes256"]}}}
BOTH = {"proposals": ["aes256-sha384-ecp384", "aes128-sha256-ecp256"], "children": OLD["children"]}
KEY = {"id": "ike-t", "data": b"new", "owners": ["a", "b"]}
OLD_KEY = {"id": "ike-t", "data": b"old", "owners": ["a", "b"]}


class Client:
    def __init__(self):
        self.sent = []

    async def command(self, name, message=None):
        self.sent.append((name, message))
        if name == "unload-shared":
            raise ViciRefused("no such key")
        return {}

    async def stream(self, name, event, message=None):
        return []


def carrier(held, *, messages=None, keys=()):
    record = Record(b"k" * 32, topology="top", messages={"t": OLD} if messages is None else messages)
    seen = Observed("a", "6.1.0", DataPath.KERNEL, {"t": {}}, facts=Facts(record=record))
    changes = tuple(Change("a", Part.SHARED, name, Kind.CHANGE) for name in keys)
    wanted = Wanted("a", "top", connections={"t": NEW, "u": NEW}, shared={"ike-t": KEY})
    made = Carrier.__new__(Carrier)
    made.plan, made.wanted, made.observed, made.held = GatewayPlan("a", changes), wanted, seen, held
    made.released, made.later, made.restarted = set(), frozenset(), False
    made.record, made.refused, made.old_keys = record, {}, {"ike-t": OLD_KEY} if keys else {}
    return made


def told(work):
    client = Client()
    asyncio.run(work(client))
    return client.sent


def test_what_accepted_both_goes_on_accepting_both():
    assert told(lambda client: carrier({"t": BOTH}).back(client, ["t", "u"])) == [("load-conn", {"t": BOTH})]


def test_what_was_kept_is_loaded_again_bytes_and_all():
    ca = {"remote": {"cacerts": [{"bytes": "3082"}]}}
    back = carrier({"t": None}, messages={"t": ca}).back
    assert told(lambda client: back(client, ["t"])) == [
        ("load-conn", {"t": {"remote": {"cacerts": [b"\x30\x82"]}}})
    ]


@pytest.mark.parametrize(("tunnels", "messages"), [([], None), (["u"], None), (["t"], {})])
def test_what_is_not_concerned_or_was_never_there_is_left_alone(tunnels, messages):
    assert told(lambda client: carrier({"t": None}, messages=messages).back(client, tunnels)) == []


def test_the_old_key_is_preferred_again():
    back = carrier({"t": BOTH}, keys=["ike-t"]).back
    assert told(lambda client: back(client, ["t"])) == [
        ("load-conn", {"t": BOTH}),
        ("load-shared", {**KEY, "id": "ike-t.next"}),
        ("load-shared", OLD_KEY),
    ]


def test_what_was_kept_back_is_loaded_and_its_sas_still_have_to_be_made_anew():
    kept = carrier({"t": None, "u": BOTH})
    assert told(lambda client: kept.release(client, ["t", "v"])) == [("load-conn", {"t": NEW})]
    assert kept.released == {"t"}


@pytest.mark.parametrize(("tunnels", "count"), [(["t"], 1), (["u"], 0), ([], 0)])
def test_a_new_key_is_preferred_only_in_the_turn_of_its_tunnel(tunnels, count):
    prefer = carrier({"t": BOTH}, keys=["ike-t"]).prefer_new_keys
    assert len(told(lambda client: prefer(client, tunnels))) == count


# ------------------------------------------------------------------------------------------------------ turns

TOPOLOGY = """
ipsecctl: 1
name: star
defaults: {control: lab, credential: {psk: "env:PSK"}}
sites:
  hub: {networks: {lan: 10.1.0.0/24}, gateway: 198.51.100.1}
  s1: {networks: {lan: 10.2.1.0/24}, gateway: 203.0.113.1}
  s2: {networks: {lan: 10.2.2.0/24}, gateway: 203.0.113.2}
tunnels: {t: {hub: hub, spokes: ["s*"]}}
"""


def sa(name, state="INSTALLED"):
    child = {"name": name, "uniqueid": "1", "state": state, "spi-in": "1", "spi-out": "2"}
    return {name: {"uniqueid": "1", "state": "ESTABLISHED", "child-sas": {f"{name}-1": child}}}


def seen(name, *tunnels, sas=()):
    record = Record(b"k" * 32, messages=dict.fromkeys(tunnels, OLD))
    facts = SimpleNamespace(record=record, restart="")
    return Observed(name, "6.1.0", DataPath.KERNEL, {t: {} for t in tunnels}, facts=facts, sas=tuple(sas))


def star(*, limit=None, half=None, observed=None):
    from ipsecctl.desired import compile_topology

    topology = load_text(TOPOLOGY, "star.yaml").topology
    states = compile_topology(topology)
    tunnels = {"hub": ("t-s1", "t-s2"), "s1": ("t-s1",), "s2": ("t-s2",)}
    plans = tuple(
        GatewayPlan(
            name,
            tuple(
                Change(name, Part.CONNECTION, t, Kind.CHANGE, disruption=Disruption.IKE_RESTART)
                for t in tunnels[name]
            ),
        )
        for name in tunnels
        if limit is None or name in limit
    )
    found = observed or {name: seen(name, *each) for name, each in tunnels.items()}
    return Prepared(topology, states, {}, found, {}, plans, {}, (), limit, half or {})


def work_on(prepared):
    declared = declare(prepared.topology, prepared.states)
    quiet = Reporter(lambda _: None, lambda _: None)
    return turning.Work(prepared, quiet, declared, {}, {}, 0.0)


class Taking:
    """Stands for ``Work._begin``: some gateways hang until they are let go."""

    def __init__(self, *hung):
        self.hung = hung
        self.free = asyncio.Event()

    async def __call__(self, name):
        if name in self.hung:
            await self.free.wait()


def turns_of(work, monkeypatch):
    """Return a list that gets of each turn the tunnels ready in it, those half changed, and if it is last."""
    turns = []

    async def tunnels(batch, ready, half, renew, left, passes, last):
        turns.append((ready, half, last))
        return True

    async def nothing(*_):
        return {}

    monkeypatch.setattr(work, "_tunnels", tunnels)
    monkeypatch.setattr(renewal, "before", nothing)
    return turns


@pytest.mark.parametrize("meanwhile", [False, True], ids=["longer", "until the tunnels of others are up"])
def test_the_others_go_on_without_one_that_hangs(meanwhile, monkeypatch):
    monkeypatch.setattr(turning, "_BEHIND_S", 0.01)
    work = work_on(star())
    turns = turns_of(work, monkeypatch)

    async def going():
        taking = Taking("s2")
        monkeypatch.setattr(work, "_begin", taking)
        async with work:
            await work.turn(["hub", "s1", "s2"], last=True, passes=lambda _: True, wait_for_all=False)
            assert work.late == {"s2"}
            taking.free.set()
            if meanwhile:
                await asyncio.wait(work._at_work.values())
            await work.stragglers()
            assert work.late == set()
            await work.stragglers()

    asyncio.run(going())
    assert turns == [({"t-s1"}, {"t-s2"}, False), ({"t-s2"}, set(), True)]


def test_a_tunnel_has_its_turn_when_both_its_ends_were_begun(monkeypatch):
    work = work_on(star())
    turns = turns_of(work, monkeypatch)

    async def going():
        monkeypatch.setattr(work, "_begin", Taking())
        async with work:
            for batch, last in ((["hub"], False), (["s1"], False), (["s2"], True)):
                await work.turn(batch, last=last, passes=lambda _: True, wait_for_all=True)

    asyncio.run(going())
    assert turns == [
        (set(), {"t-s1", "t-s2"}, False),
        ({"t-s1"}, set(), False),
        ({"t-s2"}, set(), True),
    ]


@pytest.mark.parametrize(
    ("prepared", "begun", "held"),
    [
        (star(), ["hub"], {"t-s1": None, "t-s2": None}),
        (star(), ["hub", "s1"], {"t-s2": None}),
        (star(), ["hub", "s1", "s2"], {}),
        (star(limit={"hub", "s1"}, half={"t-s2": ("s2",)}), ["hub", "s1"], {"t-s2": None}),
        (replace(star(), held=frozenset({"t-s1"})), ["hub", "s1", "s2"], {"t-s1": None}),
    ],
)
def test_what_breaks_waits_for_its_turn(prepared, begun, held):
    work = work_on(prepared)
    work._begun |= {*begun}
    assert work._held("hub") == held


def test_what_is_held_back_has_its_turn_and_is_not_made_anew(monkeypatch):
    why = {"t-s1": (Obstacle("s1: it cannot", "mend it"),)}
    work = work_on(replace(star(), held=frozenset({"t-s1"}), doomed=why))
    seen = []

    async def tunnels(batch, ready, half, renew, left, passes, last):
        seen.append((ready, renew, left))
        return True

    async def before(*_):
        return {"t-s1": frozenset({1}), "t-s2": frozenset({1})}

    monkeypatch.setattr(work, "_tunnels", tunnels)
    monkeypatch.setattr(renewal, "before", before)
    monkeypatch.setattr(renewal, "still_there", lambda renew, *_: renew)

    async def going():
        monkeypatch.setattr(work, "_begin", Taking())
        async with work:
            await work.turn(["hub", "s1", "s2"], last=True, passes=lambda _: True, wait_for_all=True)

    asyncio.run(going())
    ((ready, renew, left),) = seen
    assert (ready, renew) == ({"t-s1", "t-s2"}, {"t-s2": frozenset({1})})
    assert left.keys() == {"t-s1"}


def test_what_is_held_back_keeps_no_gate_shut():
    prepared = replace(
        replace(star(), observed={}),
        held=frozenset({"t-s1"}),
        doomed={"t-s1": (Obstacle("s1: it cannot", "mend it"),)},
    )
    declared = declare(prepared.topology, prepared.states)
    found = doubts(prepared, declared, ())
    assert found == {"t-s1": ("s1: it cannot: mend it",)}
    assert obstacles(prepared, declared)["t-s1"].barred == ("s1: it cannot: mend it",)
    assert obstacles(prepared, declared)["t-s1"].cut_off == ()


def test_what_goes_on_in_a_task_ends_with_the_work(monkeypatch):
    work = work_on(star())

    async def going():
        monkeypatch.setattr(work, "_begin", Taking("s1"))
        async with work:
            work._at_work["s1"] = asyncio.create_task(work._begin("s1"))
            await asyncio.sleep(0)
        assert work._at_work["s1"].cancelled()

    asyncio.run(going())


def test_what_carried_before_and_what_is_new():
    observed = {
        "hub": seen("hub", "t-s1", sas=[sa("t-s1"), sa("t-s2")]),
        "s1": seen("s1", "t-s1", sas=[sa("t-s1")]),
        "s2": seen("s2", sas=[sa("t-s2", "DELETING")]),
    }
    prepared = star(observed=observed)
    declared = declare(prepared.topology, prepared.states)
    assert carrying_before(prepared, declared) == {"t-s1"}
    assert new_tunnels(prepared, declared) == {"t-s2"}


def test_what_carries_is_looked_at_until_it_does():
    from ipsecctl.deploy.gate import carrying
    from ipsecctl.gateway import LiveView

    looks = []

    async def look(gateways):
        looks.append(gateways)
        there = [sa("t-s1")] if len(looks) > 1 else []
        return {name: LiveView(name, "6.1.0", tuple(there)) for name in gateways}

    found = carrying(SimpleNamespace(look=look), {"t-s1"}, {"t-s1": {"hub", "s1"}})
    assert asyncio.run(found) == {"t-s1"}
    assert looks == [{"hub", "s1"}] * 2


def test_a_way_by_another_interface_is_an_obstacle_in_the_words_of_status():
    prepared = star()
    declared = declare(prepared.topology, prepared.states)
    (tunnel,) = [t for t in declared if t.name == "t-s1"]
    ends = {end.name: end.address for end in (tunnel.left, tunnel.right)}
    hub, spoke = ends["hub"], ends["s1"]
    astray = WayOut(astray={spoke: (hub, "wan", "lan")})
    observed = {"hub": SimpleNamespace(facts=Facts(way_out=astray))}
    found = obstacles(replace(prepared, observed=observed), declared)
    assert found.keys() == {"t-s1"}
    (cause,) = found["t-s1"].astray
    assert cause == astray_obstacles(tunnel, "hub", astray)[0].cause
    assert found["t-s1"].causes == ()
