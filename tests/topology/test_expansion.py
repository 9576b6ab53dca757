"""What a topology file comes to: pairs, names, who calls, what holds where."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from netaddr import IPAddress, IPNetwork

from ipsecctl.topology import Control, ControlKind, DataPath, Topology, Tunnel

Load = Callable[[str], Topology]

FOUR = """
sites:
  dc: {networks: {servers: 10.0.0.0/24}, gateway: 198.51.100.1}
  dr: {networks: {servers: 10.0.1.0/24}, gateway: 198.51.100.2}
  clinic-a: {networks: {lan: 10.1.0.0/24}, gateway: 203.0.113.1}
  clinic-b: {networks: {lan: 10.2.0.0/24}, gateway: dynamic}
"""


def ends(tunnel: Tunnel) -> tuple[str, str, str]:
    return tunnel.left.site, tunnel.right.site, tunnel.initiator


def by_name(topology: Topology) -> dict[str, Tunnel]:
    return {tunnel.name: tunnel for tunnel in topology.tunnels}


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("x: {between: [dc, clinic-a]}", {"x": ("dc", "clinic-a", "left")}),
        ("x: {between: [dc, clinic-b]}", {"x": ("dc", "clinic-b", "right")}),
        ("x: {between: [dc, clinic-a], initiator: clinic-a}", {"x": ("dc", "clinic-a", "right")}),
        (
            "x: {hub: dc, spokes: ['clinic-*']}",
            {"x-clinic-a": ("clinic-a", "dc", "left"), "x-clinic-b": ("clinic-b", "dc", "left")},
        ),
        (
            "x: {hub: [dc, dr], spokes: clinic-b}",
            {"x-clinic-b-dc": ("clinic-b", "dc", "left"), "x-clinic-b-dr": ("clinic-b", "dr", "left")},
        ),
        ("x: {hub: dc, spokes: ['d*']}", {"x-dr": ("dr", "dc", "left")}),
        (
            "x: {hub: clinic-a, spokes: [clinic-b, 'clinic-*']}",
            {"x-clinic-b": ("clinic-b", "clinic-a", "left")},
        ),
        (
            "x: {mesh: [dr, dc, clinic-b]}",
            {
                "x-dc-clinic-b": ("dc", "clinic-b", "right"),
                "x-dr-clinic-b": ("dr", "clinic-b", "right"),
                "x-dr-dc": ("dr", "dc", "left"),
            },
        ),
    ],
)
def test_groups_become_pairs(load: Load, group: str, expected: dict[str, tuple[str, str, str]]) -> None:
    tunnels = by_name(load(f"{FOUR}tunnels:\n  {group}\n"))
    assert {name: ends(tunnel) for name, tunnel in tunnels.items()} == expected
    assert list(tunnels) == sorted(tunnels)


def test_an_end_named_with_its_gateway_goes_by_that_name(load: Load) -> None:
    topology = load("""
sites:
  dc: {networks: {s: 10.0.0.0/24}, gateways: {gw-1: 198.51.100.1, gw-2: 198.51.100.2}}
  a: {networks: {lan: 10.1.0.0/24}, gateway: dynamic}
tunnels:
  x: {hub: [dc/gw-1, dc/gw-2], spokes: [a]}
""")
    assert [(t.name, t.right.gateway.name) for t in topology.tunnels] == [
        ("x-a-gw-1", "gw-1"),
        ("x-a-gw-2", "gw-2"),
    ]
    assert [g.name for g in topology.gateways()] == ["a", "gw-1", "gw-2"]


@pytest.mark.parametrize(
    ("ours", "theirs", "initiator"),
    [
        ("198.51.100.1", "203.0.113.1", "left"),
        ("dynamic", "203.0.113.1", "left"),
        ("198.51.100.1", "{address: dynamic, identity: them}", "right"),
    ],
)
def test_somebody_elses_gateway_calls_only_when_ours_cannot(
    load: Load, ours: str, theirs: str, initiator: str
) -> None:
    sites = f"""
sites:
  us: {{networks: {{n: 10.0.0.0/24}}, gateway: {ours}}}
  them: {{managed: false, networks: {{n: 10.1.0.0/24}}, gateway: {theirs}}}
"""
    (tunnel,) = load(f"{sites}tunnels:\n  x: {{between: [us, them]}}\n").tunnels
    assert tunnel.initiator == initiator
    (turned,) = load(f"{sites}tunnels:\n  x: {{between: [them, us]}}\n").tunnels
    assert turned.initiator == {"left": "right", "right": "left"}[initiator]


def test_the_nearest_word_holds(load: Load) -> None:
    topology = load("""
credentials:
  site: {psk: "file:site-{tunnel}"}
  tunnel: {psk: "file:tunnel-{tunnel}"}
sites:
  a: {networks: {n: 10.0.0.0/24}, gateway: 198.51.100.1, profile: nist-800-77}
  b: {networks: {n: 10.1.0.0/24}, gateway: 198.51.100.2, profile: nist-800-77, credential: site}
  c: {networks: {n: 10.2.0.0/24}, gateway: 198.51.100.3, profile: nist-800-77}
tunnels:
  ab: {between: [a, b]}
  bc: {between: [b, c], profile: cnsa-2, credential: tunnel}
""")
    tunnels = by_name(topology)
    assert [str(e.credential.psk) for e in (tunnels["ab"].left, tunnels["ab"].right)] == [
        "file:secrets/ab.psk",
        "file:site-ab",
    ]
    assert {e.profile.name for e in (tunnels["ab"].left, tunnels["ab"].right)} == {"nist-800-77"}
    assert {str(e.credential.psk) for e in (tunnels["bc"].left, tunnels["bc"].right)} == {"file:tunnel-bc"}
    assert {e.profile.name for e in (tunnels["bc"].left, tunnels["bc"].right)} == {"cnsa-2"}


def test_the_built_in_profile_is_modern(load: Load) -> None:
    topology = load(f"{FOUR}tunnels: {{x: {{between: [dc, dr]}}}}\n")
    assert topology.tunnels[0].left.profile.name == "modern"


def test_gateways_have_all_defaults(load: Load) -> None:
    topology = load("""
sites:
  a: {networks: {n: 10.0.0.0/24}, gateway: 198.51.100.1}
  b:
    networks: {n: 10.1.0.0/24}
    gateway:
      address: 10.9.9.2
      public_address: nat.example.org
      control: "ssh://admin@[2001:db8::5]:22"
      datapath: libipsec
  c: {managed: false, networks: {n: 10.2.0.0/24}, gateway: gw.example.org}
tunnels: {m: {hub: a, spokes: [b, c]}}
""")
    a, b, c = topology.gateways()
    assert (a.address, a.reachable_at, a.mtu, a.identity) == (IPAddress("198.51.100.1"), a.address, 1500, "a")
    assert a.control == Control(ControlKind.LAB) and a.data_path is DataPath.AUTO
    assert (b.behind_nat, b.reachable_at, b.identity) == (True, "nat.example.org", "b")
    assert (
        b.control == Control(ControlKind.SSH, "admin@[2001:db8::5]:22") and b.data_path is DataPath.LIBIPSEC
    )
    assert (c.managed, c.identity) == (False, "gw.example.org")


def test_without_flows_everything_of_one_family_goes(load: Load) -> None:
    topology = load("""
sites:
  a: {networks: {n: [10.0.0.0/24, "fd00::/64"], m: 10.0.1.0/24}, gateway: 198.51.100.1}
  b: {networks: {n: 10.1.0.0/24}, gateway: 198.51.100.2}
tunnels: {x: {between: [a, b]}}
""")
    (flow,) = topology.tunnels[0].flows
    assert flow.name == "all"
    assert [(e.network, str(e.prefix)) for e in flow.left] == [("n", "10.0.0.0/24"), ("m", "10.0.1.0/24")]
    assert [e.prefix for e in flow.right] == [IPNetwork("10.1.0.0/24")]


FLOWS = """
sites:
  dc: {networks: {servers: 10.0.0.0/24, imaging: 10.0.8.0/24}, gateway: 198.51.100.1}
  a: {networks: {lan: 10.1.0.0/24}, gateway: dynamic}
  b: {networks: {lan: 10.2.0.0/24}, gateway: dynamic}
tunnels:
  x:
    hub: dc
    spokes: [a, b]
    flows:
"""


@pytest.mark.parametrize(
    ("flow", "seen"),
    [
        ("{from: lan, to: servers, protocol: tcp, port: 443}", ("lan-servers", 6, None, (443, 443))),
        (
            "{from: servers, to: lan, protocol: udp, port: '5000-5010'}",
            ("servers-lan", 17, (5000, 5010), None),
        ),
        (
            "{name: all-icmp, from: [lan], to: [servers, dc.imaging], protocol: icmp}",
            ("all-icmp", 1, None, None),
        ),
    ],
)
def test_a_flow_applies_either_way_round(load: Load, flow: str, seen: tuple[object, ...]) -> None:
    for tunnel in load(f"{FLOWS}      - {flow}\n").tunnels:
        (made,) = tunnel.flows
        assert (made.name, made.protocol, made.left_ports, made.right_ports) == seen
        assert {e.network for e in made.left} == {"lan"}


def test_a_flow_may_name_one_site(load: Load) -> None:
    tunnels = by_name(
        load(f"{FLOWS}      - {{from: a.lan, to: imaging}}\n      - {{from: lan, to: servers}}\n")
    )
    assert [f.name for f in tunnels["x-a"].flows] == ["lan-imaging", "lan-servers"]
    assert [f.name for f in tunnels["x-b"].flows] == ["lan-servers"]


def test_unnamed_flows_get_names_of_their_own(load: Load) -> None:
    flows = "".join(
        f"      - {{from: lan, to: servers, protocol: tcp, port: {port}}}\n" for port in (80, 443, 22)
    )
    topology = load(FLOWS + flows)
    assert [f.name for f in topology.tunnels[0].flows] == ["lan-servers", "lan-servers-2", "lan-servers-3"]


def test_networks_of_one_name_at_both_ends_go_both_ways(load: Load) -> None:
    topology = load("""
sites:
  a: {networks: {lan: 10.1.0.0/24}, gateway: 198.51.100.1}
  b: {networks: {lan: 10.2.0.0/24}, gateway: 198.51.100.2}
  c: {networks: {lan: 10.3.0.0/24}, gateway: 198.51.100.3}
tunnels:
  x: {between: [a, b], flows: [{from: lan, to: lan, protocol: tcp, port: 22}]}
  y: {between: [b, c], flows: [{from: lan, to: lan, protocol: udp}]}
""")
    tunnels = by_name(topology)
    assert [(f.name, f.left_ports, f.right_ports) for f in tunnels["x"].flows] == [
        ("lan-lan", None, (22, 22)),
        ("lan-lan-back", (22, 22), None),
    ]
    assert len(tunnels["y"].flows) == 1


def test_profiles_build_on_one_another(load: Load) -> None:
    topology = load("""
profiles:
  child: {based_on: parent, esp_rekey: 30m}
  parent: {based_on: nist-800-77, ike_rekey: 2h, pfs: false, reason: Their firewall has none}
sites:
  a: {networks: {lan: 10.1.0.0/24}, gateway: 198.51.100.1}
  b: {networks: {lan: 10.2.0.0/24}, gateway: 198.51.100.2}
tunnels: {x: {between: [a, b], profile: child}}
""")
    profile = topology.tunnels[0].left.profile
    assert (profile.name, profile.ike_rekey_s, profile.ike_life_s) == ("child", 7200, 7920)
    assert (profile.esp_rekey_s, profile.esp_life_s, profile.pfs) == (1800, 1980, False)
    assert profile.esp_proposals == ("aes256gcm16", "aes128gcm16")
    assert profile.reason == "Their firewall has none"


def test_placeholders_are_filled_in(load: Load) -> None:
    topology = load("""
sites:
  a:
    networks: {lan: 10.1.0.0/24}
    gateway: {name: gw-a, address: 198.51.100.1}
  b: {networks: {lan: 10.2.0.0/24}, gateway: 198.51.100.2}
tunnels:
  x:
    between: [a, b]
    credential: {certificate: "{site}/{gateway}.pem", key: "age:{gateway}-{tunnel}.key", ca: ca.pem}
""")
    left = topology.tunnels[0].left.credential
    assert (left.certificate, str(left.key), left.ca) == ("a/gw-a.pem", "age:gw-a-x.key", "ca.pem")
