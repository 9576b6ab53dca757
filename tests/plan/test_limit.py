"""Which gateways are meant, and what becomes of a tunnel of which one end is not."""

from __future__ import annotations

import pytest

from ipsecctl.errors import IpsecctlError
from ipsecctl.plan import (
    Change,
    Disruption,
    GatewayPlan,
    Kind,
    Part,
    calm,
    gateways_of_sites,
    half_notes,
    halves,
    limited,
    needs,
    with_far_ends,
)
from ipsecctl.topology import load_text

TOPOLOGY = """
ipsecctl: 1
name: fleet
defaults: {control: lab, credential: {psk: "env:PSK"}}
sites:
  dc:
    networks: {lan: 10.1.0.0/24}
    gateways:
      dc-1: {address: 198.51.100.1}
      dc-2: {address: 198.51.100.2}
  north: {networks: {lan: 10.2.0.0/24}, gateway: 203.0.113.2}
  south: {networks: {lan: 10.3.0.0/24}, gateway: 203.0.113.3}
  lab: {managed: false, networks: {lan: 10.4.0.0/24}, gateway: 203.0.113.4}
tunnels:
  n: {between: [north, dc/dc-1]}
  s: {between: [south, dc/dc-2]}
  p: {between: [south, lab]}
"""


@pytest.fixture(scope="module")
def topology():
    loaded = load_text(TOPOLOGY, "fleet.yaml")
    assert loaded.topology is not None, loaded.diagnostics
    return loaded.topology


@pytest.mark.parametrize(
    ("globs", "meant"),
    [
        (["north"], {"north"}),
        (["dc"], {"dc-1", "dc-2"}),
        (["dc-1"], {"dc-1"}),
        (["*th"], {"north", "south"}),
        (["dc-[2-9]", "n*"], {"dc-2", "north"}),
        (["*"], {"dc-1", "dc-2", "north", "south"}),
        ([], set()),
    ],
)
def test_gateways_and_sites_are_named(topology, globs, meant):
    assert limited(topology, globs) == meant


@pytest.mark.parametrize(
    ("glob", "said", "hint"),
    [
        ("nroth", "--limit 'nroth' fits no gateway and no site of fleet.yaml", "Did you mean 'north'?"),
        ("norht*", "--limit 'norht*' fits no gateway", "Did you mean 'north'?"),
        ("x?", "fits no gateway", "There are: dc, dc-1, dc-2, north, south."),
        ("lab", "lab is somebody else's (managed: false)", "Only gateways of ours"),
        ("", "fits no gateway", "There are"),
    ],
)
def test_a_limit_that_fits_none_is_told_with_the_nearest(topology, glob, said, hint):
    with pytest.raises(IpsecctlError) as refused:
        limited(topology, ["north", glob])
    assert said in refused.value.summary
    assert hint in refused.value.hint


def test_a_canary_is_a_site(topology):
    assert gateways_of_sites(topology, ["dc", "north"]) == {"dc-1", "dc-2", "north"}


@pytest.mark.parametrize(
    ("site", "said", "hint"),
    [
        ("suoth", "there is no site 'suoth' in fleet.yaml", "Did you mean 'south'?"),
        ("dc-1", "there is no site 'dc-1'", "That is a gateway of the site 'dc'."),
        ("lab", "the site 'lab' is somebody else's", "Sites of ours are: dc, north, south."),
    ],
)
def test_a_canary_that_is_none(topology, site, said, hint):
    with pytest.raises(IpsecctlError) as refused:
        gateways_of_sites(topology, [site])
    assert said in refused.value.summary
    assert hint in refused.value.hint


def test_far_ends_are_looked_at_where_they_are_ours(topology):
    assert with_far_ends(topology, ["south"]) == {"south", "dc-2"}
    assert with_far_ends(topology, []) == frozenset()


def connection(gateway, name, kind=Kind.CHANGE, disruption=Disruption.NONE):
    return Change(gateway, Part.CONNECTION, name, kind, disruption=disruption)


PLANS = (
    GatewayPlan(
        "dc-1",
        (
            connection("dc-1", "n", disruption=Disruption.IKE_RESTART),
            Change("dc-1", Part.FILE, "/x", Kind.CHANGE),
        ),
    ),
    GatewayPlan("north", (Change("north", Part.SHARED, "ike-n", Kind.CHANGE),)),
    GatewayPlan("south", (connection("south", "p", disruption=Disruption.REKEY),)),
)


def test_what_a_tunnel_needs():
    assert needs(PLANS) == {"n": {"dc-1", "north"}, "p": {"south"}}


@pytest.mark.parametrize(
    ("limit", "half"),
    [
        ({"dc-1", "north", "south"}, {}),
        ({"dc-1"}, {"n": ("north",), "p": ("south",)}),
        ({"north", "south"}, {"n": ("dc-1",)}),
    ],
)
def test_a_tunnel_is_half_where_an_end_that_needs_it_is_not_in_the_limit(limit, half):
    assert halves(PLANS, limit) == half


@pytest.mark.parametrize(
    ("change", "meanwhile"),
    [
        (connection("dc-1", "n", disruption=Disruption.REKEY), "goes on accepting the old configuration"),
        (connection("dc-1", "n", disruption=Disruption.IKE_RESTART), "keeps the old configuration"),
        (connection("dc-1", "n", Kind.CREATE), "it cannot come up yet"),
        (connection("dc-1", "n", Kind.REMOVE, Disruption.IKE_RESTART), "removed at this end all the same"),
    ],
)
def test_the_plan_says_what_becomes_of_half_a_tunnel(change, meanwhile):
    (note,) = half_notes(GatewayPlan("dc-1", (change,)), {"n": ("north",), "s": ("south",)})
    assert note.summary.startswith("tunnel n: north is not in --limit and stays as it is; ")
    assert meanwhile in note.summary


def test_half_a_tunnel_is_not_disturbed_unless_it_goes():
    plan, *_ = calm(PLANS, {"n"})
    assert (plan.disturbed, len(plan.changes)) == ({}, 2)
    gone = GatewayPlan("a", (connection("a", "n", Kind.REMOVE, Disruption.IKE_RESTART),))
    assert calm([gone], {"n"}) == (gone,)
