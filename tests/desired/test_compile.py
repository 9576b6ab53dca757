"""What each gateway must be: connections, children, credentials, firewall and routes."""

from __future__ import annotations

from textwrap import dedent

import pytest
from netaddr import IPAddress, IPNetwork

from ipsecctl.desired import (
    HOLDING_METRIC,
    HOLDING_TABLE,
    MAIN_TABLE,
    Action,
    AuthMethod,
    FirewallRule,
    GatewayState,
    InterfaceKind,
    Means,
    Route,
    RouteKind,
    Rule,
    RuleKind,
    compile_topology,
)
from ipsecctl.desired.routes import forwarding_routes, holding_routes
from ipsecctl.topology import Control, ControlKind, DataPath, Gateway, load_text

CLINICS = """
    defaults: {credential: clinics}
    credentials: {clinics: {psk: "file:{tunnel}.psk"}}
    sites:
      dc:
        networks: {servers: 10.10.0.0/24, imaging: 10.10.8.0/24}
        gateway: 198.51.100.10
      clinic-a:
        networks: {lan: 10.20.1.0/24}
        gateway: 203.0.113.20
      clinic-b:
        networks: {lan: 10.20.2.0/24}
        gateway: {address: dynamic, behind_nat: true, mtu: 1492}
    tunnels:
      clinics: {hub: dc, spokes: [clinic-a, clinic-b]}
"""

MESH = """
    defaults: {credential: corp, profile: pq-hybrid}
    credentials:
      corp: {certificate: "pki/{gateway}.pem", key: "file:pki/{gateway}.key", ca: pki/ca.pem}
    sites:
      north: {networks: {lan: [10.11.0.0/24, "fd00:1::/64"]}, gateway: 192.0.2.1}
      south: {networks: {lan: [10.12.0.0/24, "fd00:2::/64"]}, gateway: 192.0.2.2}
      west: {networks: {lan: [10.13.0.0/24]}, gateway: 192.0.2.3}
    tunnels:
      core: {mesh: [north, south, west]}
"""

PARTNER = """
    defaults: {credential: {psk: "file:labco.psk"}}
    sites:
      hq:
        networks: {orders: 10.30.0.0/24, results: 10.30.1.0/24}
        gateway: 198.51.100.30
      labco:
        managed: false
        networks: {lims: [172.20.0.0/24, 172.20.5.0/24]}
        gateway: 203.0.113.99
    tunnels:
      labco: {between: [hq, labco], profile: legacy-partner, children: subnet-pair}
"""


def test_there_is_a_state_for_each_managed_gateway_sorted_by_name(compiled):
    assert list(compiled(CLINICS)) == ["clinic-a", "clinic-b", "dc"]
    assert list(compiled(PARTNER)) == ["hq"]


def test_the_spoke_initiates_and_the_hub_responds(compiled):
    states = compiled(CLINICS)
    spoke, hub = states["clinic-a"].connections[0], states["dc"].connections[0]
    assert (spoke.initiates, hub.initiates) == (True, False)
    assert (spoke.keyingtries, hub.keyingtries) == (0, 1)
    actions = [(c.start_action, c.close_action, c.dpd_action) for c in (spoke.children[0], hub.children[0])]
    assert actions == [
        (Action.TRAP, Action.START, Action.RESTART),
        (Action.NONE, Action.NONE, Action.CLEAR),
    ]


def test_addresses_are_those_at_which_each_end_is_reached(compiled):
    states = compiled(CLINICS)
    addresses = {
        (name, connection.name): (connection.local_addrs, connection.remote_addrs)
        for name, state in states.items()
        for connection in state.connections
    }
    assert addresses == {
        ("clinic-a", "clinics-clinic-a"): (("203.0.113.20",), ("198.51.100.10",)),
        ("clinic-b", "clinics-clinic-b"): (("%any",), ("198.51.100.10",)),
        ("dc", "clinics-clinic-a"): (("198.51.100.10",), ("203.0.113.20",)),
        ("dc", "clinics-clinic-b"): (("198.51.100.10",), ("%any",)),
    }


def test_mobike_is_on_only_where_an_address_can_change(compiled):
    dc = compiled(CLINICS)["dc"]
    assert [(connection.name, connection.mobike, connection.nat_t) for connection in dc.connections] == [
        ("clinics-clinic-a", False, False),
        ("clinics-clinic-b", True, True),
    ]


def test_the_two_ends_mirror_each_other(compiled):
    states = compiled(MESH)
    for state in states.values():
        for connection in state.connections:
            other = next(c for c in states[connection.peer].connections if c.name == connection.name)
            assert connection.initiates is not other.initiates
            assert connection.inner_mtu == other.inner_mtu
            assert connection.local.identity == other.remote.identity
            assert [(c.name, c.local_ts, c.remote_ts) for c in connection.children] == [
                (c.name, c.remote_ts, c.local_ts) for c in other.children
            ]


def test_lifetimes_come_from_the_profile_and_rekeying_ends_before_them(compiled):
    connection = compiled(CLINICS)["dc"].connections[0]
    assert (connection.rekey_time_s, connection.over_time_s, connection.rand_time_s) == (14400, 1440, 1440)
    child = connection.children[0]
    assert (child.rekey_time_s, child.life_time_s, child.rand_time_s) == (3600, 3960, 360)


def test_a_psk_is_owned_by_both_identities_and_named_after_its_tunnel(compiled):
    dc = compiled(CLINICS)["dc"]
    assert [(key.name, key.owners, str(key.secret)) for key in dc.shared_keys] == [
        ("clinics-clinic-a", ("dc", "clinic-a"), "file:clinics-clinic-a.psk"),
        ("clinics-clinic-b", ("dc", "clinic-b"), "file:clinics-clinic-b.psk"),
    ]
    assert dc.certificates == dc.private_keys == ()


def test_certificates_are_installed_under_the_gateways_name_and_the_ca_once(compiled):
    north = compiled(MESH)["north"]
    assert [(file.target, file.source, file.ca) for file in north.certificates] == [
        ("x509/ipsecctl-north.pem", "pki/north.pem", False),
        ("x509ca/ipsecctl-ca.pem", "pki/ca.pem", True),
    ]
    assert [(key.target, str(key.secret)) for key in north.private_keys] == [
        ("private/ipsecctl-north.pem", "file:pki/north.key")
    ]
    connection = north.connections[0]
    assert connection.local.method is AuthMethod.PUBKEY
    assert (connection.local.certificate, connection.local.ca) == ("x509/ipsecctl-north.pem", "")
    assert (connection.remote.certificate, connection.remote.ca) == ("", "x509ca/ipsecctl-ca.pem")


def test_ca_files_of_one_name_from_two_places_are_kept_apart(compiled):
    hq = compiled("""
        sites:
          hq: {networks: {lan: 10.1.0.0/24}, gateway: 192.0.2.1}
          a: {networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2, credential: ours-a}
          b: {networks: {lan: 10.3.0.0/24}, gateway: 192.0.2.3, credential: ours-b}
        defaults: {credential: ours-a}
        credentials:
          ours-a: {certificate: "a/{gateway}.pem", key: "file:a/{gateway}.key", ca: a/ca.pem}
          ours-b: {certificate: "b/{gateway}.pem", key: "file:b/{gateway}.key", ca: b/ca.pem}
        tunnels: {star: {hub: hq, spokes: [a, b]}}
    """)["hq"]
    assert {file.source: file.target for file in hq.certificates if file.ca} == {
        "a/ca.pem": "x509ca/ipsecctl-ca.pem",
        "b/ca.pem": "x509ca/ipsecctl-ca-2.pem",
    }
    assert [connection.remote.ca for connection in hq.connections] == [
        "x509ca/ipsecctl-ca.pem",
        "x509ca/ipsecctl-ca-2.pem",
    ]


def peer(address: str) -> Gateway:
    return Gateway(
        name="far",
        site="far",
        address=IPAddress(address),
        behind_nat=False,
        public_address=None,
        mtu=1500,
        control=Control(ControlKind.LOCAL),
        data_path=DataPath.KERNEL,
        identity="far",
        managed=True,
    )


def selectors(state: GatewayState) -> dict[str, tuple[list[str], list[str]]]:
    return {
        child.name: ([str(ts) for ts in child.local_ts], [str(ts) for ts in child.remote_ts])
        for connection in state.connections
        for child in connection.children
    }


def test_without_flows_one_child_has_all_networks_and_the_tunnels_name(compiled):
    states = compiled(MESH)
    assert selectors(states["north"]) == {
        "core-north-south": (["10.11.0.0/24", "fd00:1::/64"], ["10.12.0.0/24", "fd00:2::/64"]),
        # west has no IPv6: its tunnel has none on this side either
        "core-north-west": (["10.11.0.0/24"], ["10.13.0.0/24"]),
    }


def test_flows_narrow_to_protocol_and_port_at_the_end_that_serves(compiled):
    states = compiled("""
        defaults: {credential: {psk: "file:{tunnel}.psk"}}
        sites:
          dc: {networks: {servers: 10.10.0.0/24, imaging: 10.10.8.0/24}, gateway: 198.51.100.10}
          clinic: {networks: {lan: 10.20.1.0/24}, gateway: 203.0.113.20}
        tunnels:
          ris:
            between: [clinic, dc]
            flows:
              - {name: pacs, from: lan, to: imaging, protocol: tcp, port: 104-107}
              - {name: push, from: servers, to: lan, protocol: udp, port: 514}
    """)
    assert selectors(states["clinic"]) == {
        "ris-pacs": (["10.20.1.0/24[tcp]"], ["10.10.8.0/24[tcp/104-107]"]),
        "ris-push": (["10.20.1.0/24[udp/514]"], ["10.10.0.0/24[udp]"]),
    }
    assert selectors(states["dc"]) == {
        name: (remote, local) for name, (local, remote) in selectors(states["clinic"]).items()
    }
    # The firewall guards the joined networks whatever the protocol.
    assert [(str(rule.local[0]), str(rule.remote[0])) for rule in states["clinic"].firewall] == [
        ("10.20.1.0/24", "10.10.0.0/24"),
        ("10.20.1.0/24", "10.10.8.0/24"),
    ]


def test_subnet_pairs_are_numbered_where_a_network_has_several_prefixes(compiled):
    assert selectors(compiled(PARTNER)["hq"]) == {
        "labco-orders-lims-1": (["10.30.0.0/24"], ["172.20.0.0/24"]),
        "labco-orders-lims-2": (["10.30.0.0/24"], ["172.20.5.0/24"]),
        "labco-results-lims-1": (["10.30.1.0/24"], ["172.20.0.0/24"]),
        "labco-results-lims-2": (["10.30.1.0/24"], ["172.20.5.0/24"]),
    }


def test_subnet_pairs_whose_names_collide_are_kept_apart(compiled):
    hq = compiled("""
        defaults: {credential: {psk: "file:{tunnel}.psk"}}
        sites:
          hq: {networks: {a: 10.1.0.0/24, a-b: 10.2.0.0/24}, gateway: 192.0.2.1}
          far: {networks: {c: 10.3.0.0/24, b-c: 10.4.0.0/24}, gateway: 192.0.2.2}
        tunnels: {t: {between: [hq, far], children: subnet-pair}}
    """)["hq"]
    assert list(selectors(hq)) == ["t-a-b-b-c", "t-a-b-c-1", "t-a-b-c-2", "t-a-c"]


@pytest.mark.parametrize("path", ["kernel", "libipsec"])
def test_firewall_rules_name_local_and_remote_as_each_gateway_sees_them(compiled, path):
    dc = compiled(CLINICS, dc=path)["dc"]
    rule = dc.firewall[0]
    assert isinstance(rule, FirewallRule)
    assert [str(prefix) for prefix in rule.local] == ["10.10.0.0/24", "10.10.8.0/24"]
    assert [str(prefix) for prefix in rule.remote] == ["10.20.1.0/24"]
    assert rule.mss == dc.connections[0].mss_ipv4


class TestInnerMtu:
    def test_kernel_tunnels_carry_what_the_weaker_link_leaves(self, compiled):
        states = compiled(CLINICS.replace("{credential: clinics}", "{credential: clinics, mode: route}"))
        assert {c.name: c.inner_mtu for c in states["dc"].connections} == {
            "clinics-clinic-a": 1446,
            "clinics-clinic-b": 1430,  # 1492 and UDP
        }
        assert states["clinic-b"].connections[0].inner_mtu == 1430
        assert (states["dc"].inner_mtu, states["clinic-a"].inner_mtu) == (1430, 1446)
        assert states["dc"].connections[0].mss_ipv4 == 1406
        assert states["dc"].daemon.route_mtu == 0

    def test_each_of_the_kernels_policies_has_its_own_on_the_routes_that_forwarded_packets_meet(
        self, compiled
    ):
        states = compiled(CLINICS)
        assert {c.name: c.inner_mtu for c in states["dc"].connections} == {
            "clinics-clinic-a": 1446,
            "clinics-clinic-b": 1430,
        }
        assert {(str(r.prefix), r.table, r.mtu) for r in states["dc"].routes} == {
            (prefix, table, mtu)
            for table in (MAIN_TABLE, HOLDING_TABLE)
            for prefix, mtu in (("10.20.1.0/24", 1446), ("10.20.2.0/24", 1430))
        }
        assert {r.mtu for r in states["clinic-a"].routes} == {1446}
        assert {state.daemon.route_mtu for state in states.values()} == {0}

    def test_libipsec_at_either_end_caps_at_1400(self, compiled):
        states = compiled(CLINICS, clinic_a="libipsec")
        assert {c.name: c.inner_mtu for c in states["dc"].connections} == {
            "clinics-clinic-a": 1400,
            "clinics-clinic-b": 1430,
        }
        assert {name: state.daemon.route_mtu for name, state in states.items()} == dict.fromkeys(states, 0)

    def test_one_mtu_holds_for_all_tunnels_of_a_libipsec_gateway_and_at_their_far_ends(self, compiled):
        body = CLINICS.replace("mtu: 1492", "mtu: 1400")
        states = compiled(body, dc="libipsec", clinic_a="libipsec")
        mtus = {(name, c.name): c.inner_mtu for name, state in states.items() for c in state.connections}
        assert set(mtus.values()) == {1338}
        assert {name: state.daemon.route_mtu for name, state in states.items()} == {
            "dc": 1338,
            "clinic-a": 1338,
            "clinic-b": 0,
        }
        assert {r.mtu for r in states["clinic-b"].routes} == {1338}

    def test_the_smallest_mtu_travels_along_a_chain_of_libipsec_gateways(self, compiled):
        sites = "\n".join(
            f"          g{n}: {{networks: {{lan: 10.{n}.0.0/24}}, "
            f"gateway: {{address: 192.0.2.{n}, mtu: {1300 if n == 1 else 1500}, datapath: libipsec}}}}"
            for n in range(1, 6)
        )
        tunnels = "\n".join(f"          t{n}: {{between: [g{n}, g{n + 1}]}}" for n in range(1, 5))
        states = compiled(f"""
        defaults: {{credential: {{psk: "file:{{tunnel}}.psk"}}}}
        sites:
{sites}
        tunnels:
{tunnels}
""")
        assert {c.inner_mtu for state in states.values() for c in state.connections} == {1246}

    def test_the_costliest_suite_in_common_counts(self, compiled):
        states = compiled("""
            defaults: {credential: {psk: "file:{tunnel}.psk"}}
            profiles:
              ours: {based_on: modern, esp: [aes256gcm16-ecp384, aes256-sha512-ecp384]}
            sites:
              a: {networks: {lan: 10.1.0.0/24}, gateway: 192.0.2.1, profile: ours}
              b: {networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2, profile: ours}
              c: {networks: {lan: 10.3.0.0/24}, gateway: 192.0.2.3, profile: nist-800-77}
            tunnels:
              ab: {between: [a, b]}
              ac: {between: [a, c]}
        """)
        assert {c.name: c.inner_mtu for c in states["a"].connections} == {"ab": 1422, "ac": 1446}

    def test_an_outer_ipv6_header_costs_twenty_bytes_more(self, compiled):
        states = compiled("""
            defaults: {credential: {psk: "file:{tunnel}.psk"}}
            sites:
              a: {networks: {lan: 10.1.0.0/24}, gateway: "2001:db8::1"}
              b: {networks: {lan: 10.2.0.0/24}, gateway: "2001:db8::2"}
            tunnels: {ab: {between: [a, b]}}
        """)
        assert states["a"].inner_mtu == 1426


class TestRoutes:
    def test_each_remote_prefix_is_held_on_a_libipsec_gateway(self, compiled):
        dc = compiled(CLINICS, dc="libipsec")["dc"]
        assert dc.data_path is DataPath.LIBIPSEC
        assert [str(route.prefix) for route in dc.routes] == ["10.20.1.0/24", "10.20.2.0/24"]
        assert {(route.table, route.mtu) for route in dc.routes} == {(MAIN_TABLE, 0)}
        assert {rule.kind for rule in dc.rules} == {*RuleKind} - {RuleKind.HOLDING}

    def test_where_the_kernel_must_find_a_route_to_meet_its_policy_it_leads_to_an_interface(self, compiled):
        dc = compiled(CLINICS)["dc"]
        assert [(str(r.prefix), r.interface, r.table, r.metric) for r in dc.routes] == [
            ("10.20.1.0/24", "ix-hold", MAIN_TABLE, HOLDING_METRIC),
            ("10.20.2.0/24", "ix-hold", MAIN_TABLE, HOLDING_METRIC),
            ("10.20.1.0/24", "ix-hold", HOLDING_TABLE, 0),
            ("10.20.2.0/24", "ix-hold", HOLDING_TABLE, 0),
        ]
        assert dc.rules[-1:] == (Rule(4),)
        assert {r.source for r in dc.routes} == {None}
        (nowhere,) = dc.interfaces
        assert (nowhere.name, nowhere.kind, nowhere.if_id) == ("ix-hold", InterfaceKind.DUMMY, 0)
        assert (nowhere.mtu, nowhere.addresses, nowhere.tunnel) == (65535, (), "")

    def test_the_source_is_an_inside_address_that_the_policies_cover(self, compiled):
        a = compiled("""
            defaults: {credential: {psk: "file:{tunnel}.psk"}}
            sites:
              a:
                networks: {lan: [10.1.0.0/24, "fd00:1::/64"], dmz: 10.1.1.0/24}
                gateway: {address: 192.0.2.1, inside: [10.1.0.1, "fd00:1::1"]}
              b: {networks: {lan: [10.2.0.0/24, "fd00:2::/64"]}, gateway: 192.0.2.2}
              c: {networks: {lan: 10.3.0.0/24}, gateway: 192.0.2.3}
            tunnels:
              ab: {between: [a, b], flows: [{from: a.lan, to: b.lan}]}
              ac: {between: [a, c], flows: [{from: a.dmz, to: c.lan}]}
        """)["a"]
        assert a.rules[-2:] == (Rule(4), Rule(6))
        assert {r.source for r in a.routes if r.table == HOLDING_TABLE} == {None}
        assert [(str(r.prefix), str(r.source)) for r in a.routes if r.table == MAIN_TABLE] == [
            ("10.2.0.0/24", "10.1.0.1"),
            ("10.3.0.0/24", "None"),  # its policies cover another network than that
            ("fd00:2::/64", "fd00:1::1"),
        ]
        # At boot the routes are set before the network is, and need their sources to be there.
        assert [str(address) for address in a.interfaces[0].addresses] == [
            "10.1.0.1/32",
            "fd00:1::1/128",
        ]

    def test_a_network_that_the_gateway_is_joined_to_is_passed_on_where_it_lies_in_a_held_prefix(self):
        def networks(*prefixes):
            return Means(connected=frozenset(map(IPNetwork, prefixes)))

        body = """
            defaults: {credential: {psk: "file:{tunnel}.psk"}}
            sites:
              a: {networks: {lan: 192.168.1.0/24}, gateway: 192.0.2.1}
              b: {networks: {x: 10.0.0.0/8, y: "fd00:2::/48"}, gateway: 192.0.2.2}
              c: {networks: {z: 172.16.0.0/12}, gateway: 192.0.2.3}
            tunnels:
              ab: {between: [a, b]}
              ac: {between: [a, c]}
        """

        known = load_text("ipsecctl: 1\nname: t\n" + dedent(body), "t.yaml").topology

        def passed_on(means):
            states = compile_topology(known, {"a": means})
            table = [r for r in states[0].routes if r.table == HOLDING_TABLE]
            assert table == sorted(table, key=lambda route: route.prefix)
            assert {r.prefix for r in table if r.kind is RouteKind.HOLDING} == {
                r.prefix for r in states[0].routes if r.table == MAIN_TABLE
            }
            return [str(r.prefix) for r in table if r.kind is RouteKind.PASSED_ON]

        assert passed_on(Means()) == []
        joined = networks("172.17.0.0/16", "10.1.2.0/24", "192.168.1.0/24", "198.51.100.0/24", "fd00:2::/64")
        assert passed_on(joined) == ["10.1.2.0/24", "172.17.0.0/16"]
        # The very networks of a tunnel, or wider ones, are no way around it.
        assert passed_on(networks("10.0.0.0/8", "172.0.0.0/8")) == []

    def test_what_is_led_into_an_interface_is_passed_on_where_a_policy_holds_around_it(self):
        def prefixes(*texts):
            return tuple(map(IPNetwork, texts))

        rules = [FirewallRule("p", 4, prefixes("10.1.0.0/24"), prefixes("10.2.0.0/16", "10.3.0.0/24"), 1400)]
        led = prefixes("10.2.1.0/24", "10.3.0.0/24")
        into = [Route(prefix, "r", RouteKind.INTO, "ix-r", 50) for prefix in led]
        held = holding_routes(DataPath.KERNEL, [peer("203.0.113.5")], rules, into, mtus={"p": 1400})
        assert [(str(r.prefix), r.tunnel, r.interface, r.mtu) for r in held] == [
            ("10.2.0.0/16", "p", "ix-hold", 1400),
            ("10.2.1.0/24", "r", "ix-hold", 1400),
            ("10.3.0.0/24", "r", "ix-hold", 1400),
        ]
        assert [(str(r.prefix), r.kind) for r in forwarding_routes(held, led)] == [
            ("10.2.0.0/16", RouteKind.HOLDING),
            ("10.2.1.0/24", RouteKind.PASSED_ON),
        ]

    def test_a_prefix_of_two_tunnels_has_the_smaller_mtu(self):
        far = (IPNetwork("10.2.0.0/24"),)
        rules = [FirewallRule(name, 4, (IPNetwork(f"10.1.{name}.0/24"),), far, 1400) for name in "123"]
        mtus = {"1": 1446, "2": 1422, "3": 1430}
        for order in (rules, rules[::-1]):
            (held,) = holding_routes(DataPath.KERNEL, [peer("203.0.113.5")], order, mtus=mtus)
            assert held.mtu == 1422

    def test_a_prefix_with_any_peers_outer_address_is_left_out(self):
        # `validate` refuses such a topology; the rule must hold for values that come from elsewhere too.
        rules = [FirewallRule("t", 4, (IPNetwork("10.1.0.0/24"),), (IPNetwork("203.0.113.0/24"),), 1400)]
        assert holding_routes(DataPath.LIBIPSEC, [peer("203.0.113.5")], rules) == ()
        assert holding_routes(DataPath.LIBIPSEC, [peer("203.0.114.5")], rules) == (
            Route(IPNetwork("203.0.113.0/24"), "t"),
        )

    def test_public_prefixes_are_left_out_while_a_peers_address_is_unknown(self, compiled):
        hq = compiled(
            """
            defaults: {credential: {psk: "file:{tunnel}.psk"}}
            sites:
              hq: {networks: {lan: 10.1.0.0/24}, gateway: 192.0.2.1}
              far: {networks: {lan: 10.2.0.0/24, dmz: 203.0.113.0/24}, gateway: dynamic}
            tunnels: {t: {between: [far, hq]}}
            """,
            hq="libipsec",
        )["hq"]
        assert [str(route.prefix) for route in hq.routes] == ["10.2.0.0/24"]


def test_a_dead_peer_is_noticed_within_30_seconds(compiled):
    dc = compiled(CLINICS)["dc"]
    assert dc.connections[0].dpd_delay_s + dc.daemon.gives_up_after_s < 30


TRAPLESS = """
defaults: {control: lab, credential: {psk: "env:PSK"}}
sites:
  old: {networks: {lan: 10.1.0.0/24}, gateway: OLD}
  new: {managed: MANAGED, networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2}
tunnels:
  t: {between: [old, new]SAID}
"""
CALLS_BY_TRAP = (Action.TRAP, Action.START, Action.RESTART)
CALLS_AT_ONCE = (Action.START, Action.START, Action.RESTART)
IS_CALLED = (Action.NONE, Action.NONE, Action.CLEAR)


@pytest.mark.parametrize(
    ("old", "new", "more", "actions"),
    [
        (((5, 9, 8), "libipsec"), ((6, 1, 0), "libipsec"), {}, (IS_CALLED, CALLS_BY_TRAP)),
        (((5, 9, 8), "libipsec"), ((6, 1, 0), "kernel"), {}, (IS_CALLED, CALLS_BY_TRAP)),
        (((5, 9, 8), "kernel"), ((6, 1, 0), "libipsec"), {}, (CALLS_BY_TRAP, IS_CALLED)),
        (((5, 9, 11), "libipsec"), ((6, 1, 0), "libipsec"), {}, (CALLS_BY_TRAP, IS_CALLED)),
        ((None, "libipsec"), ((6, 1, 0), "libipsec"), {}, (CALLS_BY_TRAP, IS_CALLED)),
        # Neither has traps; nobody else can call; somebody wants it so.
        (((5, 9, 8), "libipsec"), ((5, 9, 10), "libipsec"), {}, (CALLS_AT_ONCE, IS_CALLED)),
        (((5, 9, 8), "libipsec"), ((6, 1, 0), "libipsec"), {"OLD": "dynamic"}, (CALLS_AT_ONCE, IS_CALLED)),
        (((5, 9, 8), "libipsec"), ((6, 1, 0), "libipsec"), {"MANAGED": "false"}, (CALLS_AT_ONCE, None)),
        (
            ((5, 9, 8), "libipsec"),
            ((6, 1, 0), "libipsec"),
            {"SAID": ", initiator: old"},
            (CALLS_AT_ONCE, IS_CALLED),
        ),
    ],
)
def test_a_data_path_without_traps_is_called_or_calls_at_once(old, new, more, actions):
    text = "ipsecctl: 1\nname: test\n" + TRAPLESS
    for word, instead in ({"OLD": "192.0.2.1", "MANAGED": "true", "SAID": ""} | more).items():
        text = text.replace(word, instead)
    loaded = load_text(text, "test.yaml")
    assert loaded.topology is not None, loaded.diagnostics
    found = {
        name: Means(DataPath(data_path), version=version)
        for name, (version, data_path) in {"old": old, "new": new}.items()
    }
    states = {state.name: state for state in compile_topology(loaded.topology, found)}
    for name, expected in zip(("old", "new"), actions, strict=True):
        if expected is None:
            assert name not in states
            continue
        (connection,) = states[name].connections
        (child,) = connection.children
        assert (child.start_action, child.close_action, child.dpd_action) == expected
        assert connection.initiates is (expected is not IS_CALLED)
