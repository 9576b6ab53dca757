"""Rules for a gateway's own networks: what a tunnel brings for them follows no default route."""

from __future__ import annotations

import pytest
from netaddr import IPNetwork

from ipsecctl.desired import OwnNetwork, Rule, RuleKind, own_rules
from ipsecctl.desired.rules import own_networks
from ipsecctl.topology import load_text

LEAP = (RuleKind.BEHIND, RuleKind.OWN_PACKETS)
NETWORK = (RuleKind.WAY_HOME, RuleKind.NO_WAY_HOME)
HUB = """
    defaults: {{credential: {{psk: "file:{{tunnel}}.psk"}}}}
    sites:
      dc:
        networks: {{servers: [10.10.0.0/24, "fd00:10::/64"], imaging: 10.10.8.0/24, guests: 10.10.9.0/24}}
        gateway: {{address: 198.51.100.10{more}}}
      a: {{networks: {{lan: [10.20.1.0/24, "fd00:20::/64"]}}, gateway: 203.0.113.20}}
      b: {{networks: {{lan: 10.20.2.0/24}}, gateway: 203.0.113.30}}
    tunnels:
      one: {{between: [dc, a], flows: [{{from: dc.servers, to: a.lan}}]}}
      two: {{between: [dc, b], flows: [{{from: dc.servers, to: b.lan}}, {{from: dc.imaging, to: b.lan}}]}}
"""


@pytest.mark.parametrize(
    ("path", "mode"), [("kernel", "policy"), ("kernel", "route"), ("libipsec", "policy")]
)
def test_a_hub_has_rules_for_what_its_tunnels_join_and_once_only(compiled, path, mode):
    states = compiled(HUB.format(more=f", mode: {mode}"), dc=path, a="libipsec", b="libipsec")
    own = states["dc"].own
    assert [str(network) for network in own] == [
        "servers 10.10.0.0/24",
        "imaging 10.10.8.0/24",
        "servers fd00:10::/64",
    ]
    rules = [rule for rule in states["dc"].rules if rule.kind is not RuleKind.HOLDING]
    assert rules == list(own_rules(own))
    assert [(r.family, r.kind, r.prefix) for r in rules] == [
        *((4, kind, None) for kind in LEAP),
        *((4, kind, IPNetwork(n)) for n in ("10.10.0.0/24", "10.10.8.0/24") for kind in NETWORK),
        *((6, kind, None) for kind in LEAP),
        *((6, kind, IPNetwork("fd00:10::/64")) for kind in NETWORK),
    ]
    assert [str(network) for network in states["b"].own] == ["lan 10.20.2.0/24"]


def test_a_one_armed_gateway_has_none(compiled):
    states = compiled(HUB.format(more=", one_armed: true"))
    assert (states["dc"].own, {rule.kind for rule in states["dc"].rules}) == ((), {RuleKind.HOLDING})
    assert states["a"].own


def test_the_rules_come_in_this_order_before_our_table_and_charons():
    assert [(rule.kind, rule.priority) for rule in (Rule(4, kind) for kind in RuleKind)] == [
        (RuleKind.OWN_PACKETS, 215),
        (RuleKind.WAY_HOME, 216),
        (RuleKind.NO_WAY_HOME, 217),
        (RuleKind.BEHIND, 218),
        (RuleKind.HOLDING, 219),
    ]
    assert Rule(4, RuleKind.OWN_PACKETS).leads_to == Rule(4, RuleKind.BEHIND).priority


@pytest.mark.parametrize(
    ("prefix", "held"),
    [
        ("0.0.0.0/0", False),
        ("128.0.0.0/1", False),
        ("8.0.0.0/7", False),
        ("10.0.0.0/8", True),
        ("::/0", False),
        ("2000::/3", False),
        ("fd00::/16", True),
        ("10.1.1.1/32", True),
    ],
)
def test_a_network_as_wide_as_a_default_route_is_a_way_out_and_has_none(prefix, held):
    network = IPNetwork(prefix)
    own = own_networks([network], {network: "lan"})
    assert own == ((OwnNetwork(network, "lan"),) if held else ())
    assert bool(own_rules(own)) is held


def test_a_second_gateway_of_a_site_has_rules_for_what_the_first_ones_tunnels_bring(compiled):
    states = compiled("""
        defaults: {credential: {psk: "file:{tunnel}.psk"}}
        sites:
          d:
            networks: {lan: 10.1.0.0/24, lab: 10.1.1.0/24}
            gateways: {gw-1: 192.0.2.1, gw-2: 192.0.2.2}
          e: {networks: {lan: 10.3.0.0/24}, gateway: 192.0.2.3}
        tunnels: {t: {between: [d/gw-2, e], flows: [{from: d.lan, to: e.lan}]}}
    """)
    for gateway in ("gw-1", "gw-2"):
        assert [str(network) for network in states[gateway].own] == ["lan 10.1.0.0/24"]
        assert states[gateway].rules[:4] == own_rules(states[gateway].own)


def test_one_armed_is_a_yes_or_no():
    loaded = load_text(
        "ipsecctl: 1\nname: t\nsites:\n  a: {gateway: {address: 192.0.2.1, one_armed: sometimes}}\n", "t.yaml"
    )
    (finding,) = [d for d in loaded.diagnostics if "one_armed" in d.summary or d.line == 4]
    assert finding.line == 4
