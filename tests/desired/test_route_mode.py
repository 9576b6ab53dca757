"""Route mode and what the gateways' means decide: interfaces, if_ids, routes, modes, versions."""

from __future__ import annotations

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netaddr import IPAddress, IPNetwork

from ipsecctl.desired import (
    HOLDING_METRIC,
    SINCE,
    FirewallRule,
    InterfaceKind,
    Knows,
    Means,
    Route,
    RouteKind,
    compile_topology,
    knows,
    unmet,
)
from ipsecctl.desired.routes import holding_routes
from ipsecctl.topology import DataPath, Mode, derived_if_id, interface_name, load_text

TWO_HUBS = """
    defaults: {credential: {psk: "file:{tunnel}.psk"}, mode: MODE}
    sites:
      dc:
        networks: {servers: [10.10.0.0/24, "fd00:10::/64"]}
        gateways:
          gw-1: {address: 198.51.100.1, inside: [10.10.0.1, "fd00:10::1"]}
          gw-2: {address: 198.51.100.2, mtu: 1400}
      clinic:
        networks: {lan: [10.20.0.0/24, "fd00:20::/64"]}
        gateway: {address: 203.0.113.20, inside: 10.20.0.1}
    tunnels:
      clinics: {hub: [dc/gw-1, dc/gw-2], spokes: clinic}
"""


def routed(mode="route"):
    loaded = load_text("ipsecctl: 1\nname: test\n" + dedent(TWO_HUBS).replace("MODE", mode), "t.yaml")
    assert loaded.topology is not None, loaded.diagnostics
    return loaded.topology


def states(mode="route", **means):
    return {
        s.name: s for s in compile_topology(routed(mode), {k.replace("_", "-"): m for k, m in means.items()})
    }


class TestInterfaces:
    def test_one_for_each_tunnel_with_its_own_mtu_and_the_inside_addresses_as_hosts(self):
        clinic = states()["clinic"]
        assert [(i.name, i.mtu, i.tunnel) for i in clinic.interfaces] == [
            (interface_name("clinics-clinic-gw-1"), 1446, "clinics-clinic-gw-1"),
            (interface_name("clinics-clinic-gw-2"), 1346, "clinics-clinic-gw-2"),
        ]
        assert {i.addresses for i in clinic.interfaces} == {(IPNetwork("10.20.0.1/32"),)}
        assert states()["gw-1"].interfaces[0].addresses == (
            IPNetwork("10.10.0.1/32"),
            IPNetwork("fd00:10::1/128"),
        )
        assert states()["gw-2"].interfaces[0].addresses == ()

    def test_both_ends_and_the_interface_have_one_if_id_made_of_the_names(self):
        both = states()
        wanted = derived_if_id("test", "clinics-clinic-gw-1")
        for name in ("clinic", "gw-1"):
            assert both[name].interfaces[0].if_id == wanted
            assert both[name].connections[0].children[0].if_id == wanted
            assert both[name].connections[0].mode is Mode.ROUTE

    def test_the_mtu_of_one_tunnel_is_no_matter_of_another(self):
        assert [state.daemon.route_mtu for state in states().values()] == [0, 0, 0]
        assert {c.name: c.inner_mtu for c in states()["clinic"].connections} == {
            "clinics-clinic-gw-1": 1446,
            "clinics-clinic-gw-2": 1346,
        }

    def test_policy_mode_has_none(self):
        for state in states("policy").values():
            assert [(i.name, i.kind) for i in state.interfaces] == [("ix-hold", InterfaceKind.DUMMY)]
            assert {(route.kind, route.interface) for route in state.routes} == {
                (RouteKind.HOLDING, "ix-hold")
            }
            assert {child.if_id for c in state.connections for child in c.children} == {0}
            assert {rule.interface for rule in state.firewall} == {""}


@pytest.mark.parametrize(
    ("tunnel", "name"),
    [
        ("ab", "ix-ab"),
        ("exactly-12-c", "ix-exactly-12-c"),
        ("clinics-clinic-a", "ix-clini-72ca7b"),
        ("hold", "ix-hold-e8b22d"),
    ],
)
def test_a_name_fits_fifteen_characters_and_stays_the_same(tunnel, name):
    assert interface_name(tunnel) == name
    assert len(name) <= 15


def test_an_if_id_is_never_zero_and_has_31_bits():
    ids = {derived_if_id("t", str(n)) for n in range(2000)}
    assert len(ids) == 2000
    assert all(0 < number < 1 << 31 for number in ids)


class TestRoutes:
    def test_into_each_interface_and_the_first_by_name_is_the_best(self):
        clinic = states()["clinic"]
        first, second = (i.name for i in clinic.interfaces)
        assert [
            (str(r.prefix), r.interface, r.metric, r.source and str(r.source))
            for r in clinic.routes
            if r.kind is RouteKind.INTO
        ] == [
            ("10.10.0.0/24", first, 50, "10.20.0.1"),
            ("10.10.0.0/24", second, 51, "10.20.0.1"),
            ("fd00:10::/64", first, 50, None),
            ("fd00:10::/64", second, 51, None),
        ]

    def test_what_is_led_into_a_tunnel_is_held_behind_it(self):
        held = [r for r in states()["clinic"].routes if r.kind is RouteKind.HOLDING]
        assert [str(r.prefix) for r in held] == ["10.10.0.0/24", "fd00:10::/64"]
        assert {(r.metric, r.interface, r.source) for r in held} == {(HOLDING_METRIC, "", None)}

    def test_no_narrower_prefix_is_held_than_is_led(self, compiled):
        a = compiled("""
            defaults: {credential: {psk: "file:{tunnel}.psk"}, mode: route}
            sites:
              a: {networks: {lan: 10.1.0.0/24}, gateway: 192.0.2.1}
              b: {networks: {x: 10.2.0.0/24, y: 10.2.1.0/24}, gateway: 192.0.2.2}
            tunnels: {ab: {between: [a, b], routes: [10.2.0.0/16, 10.1.0.0/24]}}
        """)["a"]
        assert [(str(r.prefix), r.kind) for r in a.routes] == [
            ("10.2.0.0/16", RouteKind.INTO),
            ("10.2.0.0/16", RouteKind.HOLDING),
        ]

    def test_none_at_all_where_a_routing_daemon_does_it(self, compiled):
        a = compiled("""
            defaults: {credential: {psk: "file:{tunnel}.psk"}, mode: route}
            sites:
              a: {networks: {lan: 10.1.0.0/24}, gateway: 192.0.2.1}
              b: {networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2}
            tunnels: {ab: {between: [a, b], routes: none}}
        """)["a"]
        assert a.routes == ()
        assert a.interfaces

    @pytest.mark.parametrize(
        ("led", "by_policy", "held"),
        [
            ("10.2.0.0/16", "10.2.9.0/24", ["10.2.0.0/16 ix-hold"]),  # a narrower route would win over INTO
            ("10.2.9.0/24", "10.2.0.0/16", ["10.2.0.0/16 ix-hold", "10.2.9.0/24 ix-hold"]),
            ("10.2.0.0/16", "10.2.0.0/16", ["10.2.0.0/16 ix-hold"]),
            ("10.2.0.0/16", "10.3.0.0/16", ["10.2.0.0/16 ", "10.3.0.0/16 ix-hold"]),
        ],
    )
    def test_where_a_policy_needs_a_way_it_finds_one_and_none_wins_over_those_into_tunnels(
        self, rule, led, by_policy, held
    ):
        into = [Route(IPNetwork(led), "r", RouteKind.INTO, "ix-r", 50)]
        rules = [rule("r", led, "ix-r"), rule("p", by_policy, "")]
        found = holding_routes(DataPath.KERNEL, [], rules, into)
        assert [f"{r.prefix} {r.interface}" for r in found] == held

    @given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6), st.booleans()), max_size=8))
    def test_every_policy_finds_a_route_and_every_route_into_a_tunnel_keeps_its_packets(self, drawn):
        def prefix(place, spare):
            return IPNetwork(f"10.0.{place}.0/{24 - spare}").cidr

        into = [
            Route(p, "r", RouteKind.INTO, "ix-r", 50)
            for p in sorted({prefix(x, s) for x, s, routed in drawn if routed})
        ]
        rules = [
            FirewallRule("t", 4, (), (prefix(x, s),), 1400, "ix-r" if routed else "")
            for x, s, routed in drawn
        ]
        table = [*into, *holding_routes(DataPath.KERNEL, [], rules, into)]

        def best(address):
            fitting = [r for r in table if address in r.prefix]
            return max(fitting, key=lambda r: (r.prefix.prefixlen, -r.metric), default=None)

        for rule in rules:
            for place in range(64):
                address = IPAddress(f"10.0.{place}.1")
                if address in rule.remote[0]:
                    found = best(address)
                    assert found is not None
                    assert found.interface == "ix-r" if rule.interface else found.interface
        # Also when somebody takes the interface, and the routes to it, away.
        table = [r for r in table if r.kind is RouteKind.HOLDING]
        for rule in rules:
            for place in range(64):
                address = IPAddress(f"10.0.{place}.1")
                if address in rule.remote[0]:
                    found = best(address)
                    assert found is not None
                    assert rule.interface or found.interface == "ix-hold"


def test_the_addresses_of_the_interface_itself_have_no_other_way(compiled):
    a = compiled("""
        defaults: {credential: {psk: "file:{tunnel}.psk"}, mode: route}
        sites:
          a: {networks: {lan: 10.1.0.0/24}, gateway: 192.0.2.1}
          b: {networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2}
        tunnels:
          ab: {between: [a, b], addresses: {a: [169.254.7.1/30, "fd00:ff::1/64"], b: 169.254.7.2/30}}
    """)["a"]
    assert [(str(r.local[0]), str(r.remote[0]), r.interface) for r in a.firewall] == [
        ("10.1.0.0/24", "10.2.0.0/24", "ix-ab"),
        ("169.254.7.1/32", "169.254.7.2/32", "ix-ab"),
    ]
    assert [str(address) for address in a.interfaces[0].addresses] == ["169.254.7.1/30", "fd00:ff::1/64"]
    assert {str(route.prefix) for route in a.routes} == {"10.2.0.0/24"}


class TestModes:
    @pytest.mark.parametrize(
        ("means", "mode"),
        [
            (Means(), Mode.POLICY),
            (Means(DataPath.KERNEL), Mode.POLICY),
            (Means(DataPath.KERNEL, xfrm_interfaces=False), Mode.POLICY),
            (Means(DataPath.KERNEL, xfrm_interfaces=True), Mode.ROUTE),
            (Means(DataPath.AUTO, xfrm_interfaces=True), Mode.ROUTE),
            (Means(DataPath.LIBIPSEC, xfrm_interfaces=True), Mode.POLICY),
        ],
    )
    def test_auto_is_route_only_where_it_is_known_to_work(self, means, mode):
        clinic = states("auto", clinic=means)["clinic"]
        assert {c.mode for c in clinic.connections} == {mode}
        routed = any(interface.kind is InterfaceKind.XFRM for interface in clinic.interfaces)
        assert routed is (mode is Mode.ROUTE)

    def test_each_end_decides_for_itself(self):
        both = states("auto", clinic=Means(DataPath.KERNEL, xfrm_interfaces=True))
        assert {i.kind for i in both["clinic"].interfaces} == {InterfaceKind.XFRM}
        assert {i.kind for i in both["gw-1"].interfaces} == {InterfaceKind.DUMMY}

    def test_the_tunnel_comes_before_the_gateway_and_that_before_the_defaults(self, compiled):
        a = compiled("""
            defaults: {credential: {psk: "file:{tunnel}.psk"}, mode: policy}
            sites:
              a: {networks: {lan: 10.1.0.0/24}, gateway: {address: 192.0.2.1, mode: route}}
              b: {networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2}
              c: {networks: {lan: 10.3.0.0/24}, gateway: 192.0.2.3}
            tunnels: {ab: {between: [a, b]}, ac: {between: [a, c], mode: policy}}
        """)
        assert [c.mode for c in a["a"].connections] == [Mode.ROUTE, Mode.POLICY]
        assert [c.mode for c in a["b"].connections] == [Mode.POLICY]
        assert [rule.interface for rule in a["a"].firewall] == ["ix-ab", ""]


def test_selectors_for_anything_have_the_families_of_the_flows(compiled):
    body = """
        defaults: {credential: {psk: "file:{tunnel}.psk"}, mode: route}
        sites:
          a: {networks: {x: 10.1.0.0/24, y: "fd00:1::/64"}, gateway: 192.0.2.1}
          b: {networks: {x: 10.2.0.0/24, y: "fd00:2::/64"}, gateway: 192.0.2.2}
        tunnels:
          ab: {between: [a, b], selectors: any, flows: [{from: a.x, to: b.x}FLOW]}
    """
    for more, wanted in (("", ["0.0.0.0/0"]), (", {from: a.y, to: b.y}", ["0.0.0.0/0", "::/0"])):
        (child,) = compiled(body.replace("FLOW", more))["a"].connections[0].children
        assert child.name == "ab"
        assert [str(ts) for ts in child.local_ts] == [str(ts) for ts in child.remote_ts] == wanted


OPTIONS = """
    defaults: {credential: {psk: "file:{tunnel}.psk"}, profile: fast}
    profiles:
      slow: {options: {copy_df: false, replay_window: 64}}
      fast: {based_on: slow, options: {hw_offload: packet, replay_window: 128}}
    sites:
      a: {networks: {lan: 10.1.0.0/24}, gateway: 192.0.2.1}
      b: {networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2}
    tunnels: {ab: {between: [a, b], options: {replay_window: 256, mark_in: 0x10/0xff, force_udp: true}}}
"""


def test_options_of_the_tunnel_come_before_those_of_the_profile_and_its_base(compiled):
    a = compiled(OPTIONS)["a"]
    options = a.connections[0].children[0].options
    assert (options.replay_window, options.copy_df, options.hw_offload) == (256, False, "packet")
    assert (options.mark_in, options.per_cpu_sas, options.copy_dscp) == ("0x10/0xff", None, None)
    assert a.connections[0].force_udp
    assert a.connections[0].nat_t
    assert a.inner_mtu == 1438


class TestVersions:
    def test_what_is_not_known_is_taken_to_know_all(self):
        assert all(knows(None, what) for what in Knows)
        assert not any(knows((5, 0), what) for what in Knows)
        assert set(SINCE) == set(Knows)

    def test_what_is_asked_for_and_not_there_is_named_with_the_first_version(self, compiled):
        def lacking(version):
            topology = load_text("ipsecctl: 1\nname: t\n" + dedent(OPTIONS), "t.yaml").topology
            assert topology is not None
            (state, _) = compile_topology(topology, {"a": Means(version=version)})
            return [(each.what, each.since, each.needed_by) for each in unmet(state)]

        assert lacking((6, 0, 1)) == lacking(None) == []
        assert lacking((5, 9, 8)) == [("hw_offload = packet", (5, 9, 10), "ab")]

    @pytest.mark.parametrize(
        ("version", "whats"),
        [((5, 9, 8), ["ML-KEM", "additional key exchanges (ke1_ to ke7_)"]), ((6, 0, 0), [])],
    )
    def test_additional_key_exchanges_and_ml_kem_came_with_six(self, version, whats):
        topology = load_text(
            """
ipsecctl: 1
name: t
defaults: {credential: {psk: "file:{tunnel}.psk"}, profile: pq-hybrid}
sites:
  a: {networks: {lan: 10.1.0.0/24}, gateway: 192.0.2.1}
  b: {networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2}
tunnels: {ab: {between: [a, b]}}
""",
            "t.yaml",
        ).topology
        assert topology is not None
        (state, _) = compile_topology(topology, {"a": Means(version=version)})
        assert [each.what for each in unmet(state)] == whats

    @pytest.mark.parametrize(("network", "too_long"), [("m", False), ("m" * 60, True)])
    def test_long_names_are_too_long_for_older_versions(self, network, too_long):
        text = f"""
ipsecctl: 1
name: t
defaults: {{credential: {{psk: "file:x.psk"}}}}
sites:
  a: {{networks: {{{network}: 10.1.0.0/24}}, gateway: 192.0.2.1}}
  b: {{networks: {{{network}: 10.2.0.0/24}}, gateway: 192.0.2.2}}
tunnels: {{{"t" * 40}: {{between: [a, b], children: subnet-pair}}}}
"""
        topology = load_text(text, "t.yaml").topology
        assert topology is not None
        for version, wanted in (((6, 0, 3), too_long), ((6, 0, 4), False)):
            found = unmet(compile_topology(topology, {"a": Means(version=version)})[0])
            assert [each.what for each in found] == ["long names of sections"] * wanted

    def test_a_libipsec_without_raw_esp_sends_esp_in_udp(self):
        found = states("policy", clinic=Means(DataPath.LIBIPSEC, version=(5, 9, 8)))
        assert all(c.nat_t for c in found["clinic"].connections)
        assert all(c.nat_t for c in found["gw-1"].connections)
        found = states("policy", clinic=Means(DataPath.LIBIPSEC, version=(5, 9, 11)))
        assert not any(c.nat_t for c in found["clinic"].connections)


def test_sources_are_addresses_of_the_routes_family():
    for state in states().values():
        for route in state.routes:
            assert route.source is None or isinstance(route.source, IPAddress)
            assert route.source is None or route.source.version == route.prefix.version
