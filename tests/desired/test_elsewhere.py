"""What a gateway holds back for the tunnels of its site's other gateways."""

from __future__ import annotations

from netaddr import IPNetwork

from ipsecctl.desired import HOLDING_METRIC, Elsewhere

TWO_GATEWAYS = """
    defaults: {credential: {psk: "file:{tunnel}.psk"}}
    sites:
      dc:
        networks: {lan: [10.1.0.0/24, "fd00:1::/64"], dmz: 10.1.8.0/24}
        gateways:
          gw-1: 198.51.100.1
          gw-2: {address: 10.200.0.2, public_address: 198.51.100.2}
      c: {networks: {lan: 10.2.0.0/24}, gateway: 203.0.113.20}
      d: {networks: {lan: [10.3.0.0/24, "fd00:3::/64"]}, gateway: D_ADDRESS}
    tunnels:
      c1: {between: [c, dc/gw-1]}
      d2: {between: [d, dc/gw-2]FLOWS}
"""


def two(d="dynamic", flows=""):
    return TWO_GATEWAYS.replace("D_ADDRESS", d).replace("FLOWS", flows)


def pairs(held: Elsewhere):
    return [(p.tunnel, str(near), str(far)) for p in held.pairs for near in p.local for far in p.remote]


def unreachable(state):
    return {str(r.prefix): r.tunnel for r in state.routes if not r.interface}


def test_each_gateway_of_a_site_holds_what_the_tunnels_of_the_other_carry(compiled):
    states = compiled(two())
    assert pairs(states["gw-1"].elsewhere) == [
        ("d2", "10.1.0.0/24", "10.3.0.0/24"),
        ("d2", "10.1.8.0/24", "10.3.0.0/24"),
        ("d2", "fd00:1::/64", "fd00:3::/64"),
    ]
    assert pairs(states["gw-2"].elsewhere) == [
        ("c1", "10.1.0.0/24", "10.2.0.0/24"),
        ("c1", "10.1.8.0/24", "10.2.0.0/24"),
    ]
    assert [str(prefix) for prefix in states["gw-1"].elsewhere.next_hops] == [
        "10.1.0.0/24",
        "10.1.8.0/24",
        "fd00:1::/64",
    ]


def test_the_only_gateway_of_a_site_holds_nothing_for_others(compiled):
    states = compiled(two())
    assert states["c"].elsewhere == states["d"].elsewhere == Elsewhere()


def test_what_it_carries_itself_is_left_out(compiled):
    redundant = two() + "      d1: {between: [d, dc/gw-1], flows: [{from: lan, to: lan}]}\n"
    states = compiled(redundant)
    assert pairs(states["gw-1"].elsewhere) == [("d2", "10.1.8.0/24", "10.3.0.0/24")]
    assert [p for p in pairs(states["gw-2"].elsewhere) if p[0] == "d1"] == []


def test_flows_narrow_what_is_held(compiled):
    states = compiled(two(flows=", flows: [{from: lan, to: dmz}]"))
    assert pairs(states["gw-1"].elsewhere) == [("d2", "10.1.8.0/24", "10.3.0.0/24")]


def test_the_routes_are_unreachable_with_the_worst_metric_whatever_carries_esp(compiled):
    for data_path in ("kernel", "libipsec"):
        gateway = compiled(two(), gw_1=data_path)["gw-1"]
        held = [route for route in gateway.routes if route.tunnel == "d2"]
        assert [str(route.prefix) for route in held] == ["10.3.0.0/24", "fd00:3::/64"]
        assert {(route.interface, route.metric) for route in held} == {("", HOLDING_METRIC)}


def test_no_narrower_route_than_to_a_network_that_it_leads_to_itself(compiled):
    wide = two(flows=", flows: [{from: lan, to: lan}]").replace(
        'fd00:3::/64"]}', 'fd00:3::/64"], all: 10.3.0.0/16}'
    )
    wide += "      d1: {between: [d, dc/gw-1], flows: [{from: all, to: dmz}]}\n"
    for mode in ("policy", "route"):
        gateway = compiled(wide.replace("credential:", f"mode: {mode}, credential:"))["gw-1"]
        assert [str(r.prefix) for r in gateway.routes if r.tunnel == "d2"] == ["fd00:3::/64"]
        assert ("d2", "10.1.0.0/24", "10.3.0.0/24") in pairs(
            gateway.elsewhere
        )  # by the firewall all the same


def test_a_network_that_may_hold_a_peers_address_has_no_route(compiled):
    public = two().replace("10.3.0.0/24", "192.0.2.0/24")
    assert "192.0.2.0/24" not in unreachable(compiled(public)["gw-1"])
    fixed = public.replace("dynamic", "203.0.113.30")
    assert "192.0.2.0/24" in unreachable(compiled(fixed)["gw-1"])


def test_a_next_hop_beside_its_own_wan_address_is_not_inside_the_site(compiled):
    """In a network that holds it the provider's router is, too; another gateway's inside address is known."""
    one_arm = two().replace("10.200.0.2", "10.1.0.2")
    assert [str(p) for p in compiled(one_arm)["gw-2"].elsewhere.next_hops] == ["10.1.8.0/24", "fd00:1::/64"]
    known = one_arm.replace("gw-1: 198.51.100.1", "gw-1: {address: 198.51.100.1, inside: 10.1.0.1}")
    assert IPNetwork("10.1.0.1/32") in compiled(known)["gw-2"].elsewhere.next_hops
