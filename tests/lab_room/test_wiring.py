"""The wiring: which nodes, links and addresses a lab has."""

from __future__ import annotations

import pytest
from netaddr import IPAddress

from ipsecctl.errors import LabError, TopologyRefused
from ipsecctl.lab import Lab, Role, interface_name, load
from ipsecctl.lab.build import wire
from ipsecctl.lab.spec import LabSpec
from ipsecctl.topology import load_text

SITES = """
ipsecctl: 1
name: t
defaults: {control: lab, credential: {psk: "file:t.psk"}}
sites:
"""


def wired(sites: str, lab: dict[str, object] | None = None, far_end: str = "b") -> Lab:
    loaded = load_text(f"{SITES}{sites}tunnels: {{all: {{between: [a, {far_end}]}}}}\n", "t.yaml")
    assert loaded.topology is not None, loaded.diagnostics
    made, findings = wire("t", loaded.topology, LabSpec.model_validate(lab or {}))
    assert made is not None, findings
    return made


def refused(sites: str, lab: dict[str, object]) -> list[str]:
    loaded = load_text(SITES + sites + "tunnels: {all: {between: [a, b]}}\n", "t.yaml")
    assert loaded.topology is not None, loaded.diagnostics
    made, findings = wire("t", loaded.topology, LabSpec.model_validate(lab))
    assert made is None
    return [finding.summary for finding in findings]


TWO = """
  a: {networks: {lan: 10.1.0.0/24}, gateway: 198.51.100.1}
  b: {networks: {lan: [10.2.0.0/24, "fd00:2::/64"]}, gateway: 203.0.113.7}
"""
HIDDEN = """
  a: {networks: {lan: 10.1.0.0/24}, gateway: 198.51.100.10}
  b: {networks: {lan: 10.2.0.0/24}, gateway: {address: dynamic, behind_nat: true, mtu: 1492}}
"""


def addresses(lab: Lab, node: str, interface: str) -> list[str]:
    return [str(address) for address in lab.node(node).interface(interface).addresses]


def routes(lab: Lab, node: str) -> list[str]:
    return [f"{r.prefix} via {r.via} dev {r.interface}" for r in lab.node(node).routes]


def test_gateways_have_the_first_address_of_a_network_and_hosts_the_tenth() -> None:
    lab = wired(TWO)
    assert addresses(lab, "b", "lan-lan") == ["10.2.0.1/24", "fd00:2::1/64"]
    assert addresses(lab, "b-lan", "lan") == ["10.2.0.10/24", "fd00:2::10/64"]
    assert routes(lab, "b-lan") == ["0.0.0.0/0 via 10.2.0.1 dev lan", "::/0 via fd00:2::1 dev lan"]


def test_the_next_hop_is_the_first_free_address_of_the_wan_prefix() -> None:
    lab = wired(TWO)
    assert routes(lab, "a") == ["0.0.0.0/0 via 198.51.100.2 dev wan"]  # .1 is the gateway's own
    assert routes(lab, "b") == ["0.0.0.0/0 via 203.0.113.1 dev wan"]
    assert addresses(lab, "internet", "to-a") == ["198.51.100.2/24"]
    assert routes(lab, "internet") == []


def test_two_wan_addresses_of_one_prefix_are_routed_one_by_one() -> None:
    lab = wired(TWO.replace("203.0.113.7", "198.51.100.7"))
    assert addresses(lab, "b", "wan") == ["198.51.100.7/32"]
    assert routes(lab, "b") == ["198.51.100.2/32 via None dev wan", "0.0.0.0/0 via 198.51.100.2 dev wan"]
    assert routes(lab, "internet") == [
        "198.51.100.1/32 via None dev to-a",
        "198.51.100.7/32 via None dev to-b",
    ]


def test_a_gateway_behind_nat_gets_a_box_without_being_asked() -> None:
    lab = wired(HIDDEN)
    assert addresses(lab, "b", "wan") == ["192.168.100.10/24"]
    assert addresses(lab, "b-nat", "lan") == ["192.168.100.1/24"]
    assert addresses(lab, "b-nat", "wan") == ["192.0.2.10/24"]
    assert {link.name: link.mtu for link in lab.links}["wan.b-nat"] == 1492
    assert lab.outer_address("b") == IPAddress("192.0.2.10")
    assert lab.internet_interface("b") == "to-b-nat"
    assert lab.wan_node("a").name == "a"


def test_a_lab_file_places_the_box_and_changes_a_link() -> None:
    box = {"gateways": "b", "address": "192.0.2.30", "inside": "192.168.178.0/24"}
    lab = wired(HIDDEN, {"nat": {"box": box}, "links": {"box": {"mtu": 1400}, "b.lan": {"mtu": 9000}}})
    assert addresses(lab, "box", "wan") == ["192.0.2.30/24"]
    mtus = {link.name: link.mtu for link in lab.links}
    assert (mtus["wan.box"], mtus["inside.box"], mtus["lan.b.lan"], mtus["lan.a.lan"]) == (
        1400,
        1492,
        9000,
        1500,
    )


def test_a_public_address_is_the_boxs_and_udp_is_passed_on() -> None:
    hidden = "{address: 192.168.5.2, behind_nat: true, public_address: 203.0.113.9}"
    lab = wired(HIDDEN.replace("{address: dynamic, behind_nat: true, mtu: 1492}", hidden))
    nat = lab.node("b-nat").nat
    assert nat is not None
    assert (str(nat.inside), str(nat.forwards_to)) == ("192.168.5.0/24", "192.168.5.2")
    assert addresses(lab, "b-nat", "wan") == ["203.0.113.9/24"]


def test_a_dns_name_becomes_an_address_of_the_lab_that_nodes_can_resolve() -> None:
    lab = wired(TWO.replace("203.0.113.7", "vpn.example.org"))
    assert lab.names == (("vpn.example.org", IPAddress("192.0.2.10")),)
    lab = wired(
        TWO.replace("203.0.113.7", "vpn.example.org"), {"gateways": {"b": {"address": "203.0.113.50"}}}
    )
    assert lab.names == (("vpn.example.org", IPAddress("203.0.113.50")),)


def test_an_ipv6_wan() -> None:
    lab = wired(TWO.replace("203.0.113.7", '"2001:db8:7::2"').replace("198.51.100.1", '"2001:db8:1::2"'))
    assert addresses(lab, "b", "wan") == ["2001:db8:7::2/64"]
    assert routes(lab, "b") == ["::/0 via 2001:db8:7::1 dev wan"]


def test_more_hosts_take_the_next_addresses_or_those_said() -> None:
    lab = wired(
        TWO, {"hosts": {"x": {"network": "b.lan"}, "y": {"network": "b.lan", "address": "10.2.0.11"}}}
    )
    assert addresses(lab, "y", "lan") == ["10.2.0.11/24", "fd00:2::12/64"]
    assert addresses(lab, "x", "lan") == ["10.2.0.12/24", "fd00:2::11/64"]
    assert [host.name for host in lab.hosts("b", "lan")] == ["b-lan", "x", "y"]


def test_a_host_of_a_small_network_has_what_is_left() -> None:
    lab = wired(TWO.replace("10.1.0.0/24", "10.1.0.0/30"))
    assert addresses(lab, "a-lan", "lan") == ["10.1.0.2/30"]


def test_jumbo_frames_need_a_jumbo_network() -> None:
    lab = wired(TWO.replace("gateway: 203.0.113.7", "gateway: {address: 203.0.113.7, mtu: 9000}"))
    assert {link.name: link.mtu for link in lab.links}["lan.b.lan"] == 9000


def test_two_gateways_at_a_site() -> None:
    gateways = "gateways: {b1: 203.0.113.7, b2: 203.0.113.8}"
    lab = wired(TWO.replace("gateway: 203.0.113.7", gateways), far_end="b/b2")
    assert addresses(lab, "b1", "lan-lan")[0] == "10.2.0.1/24"
    assert addresses(lab, "b2", "lan-lan")[0] == "10.2.0.2/24"
    assert routes(lab, "b-lan")[0] == "0.0.0.0/0 via 10.2.0.1 dev lan"


@pytest.mark.parametrize(
    ("name", "short"),
    [("servers", "lan-servers"), ("elevenchars", "lan-elevenchars"), ("imaging-archive", "lan-imagin-abe8")],
)
def test_interface_names_fit_what_linux_allows(name: str, short: str) -> None:
    assert interface_name("lan", name) == short
    assert len(short) <= 15


def test_long_names_stay_apart() -> None:
    assert interface_name("to", "clinic-north-east-1") != interface_name("to", "clinic-north-east-2")


def test_what_cannot_be_is_refused() -> None:
    assert refused(HIDDEN, {"nat": {"box": {"gateways": ["a"]}}}) == [
        "the topology does not say that a is behind a NAT"
    ]
    assert refused(TWO, {"gateways": {"bb": {}}}) == ["there is no gateway 'bb'"]
    assert refused(TWO, {"hosts": {"a": {"network": "b.lan"}}}) == [
        "a host would be node 'a' of the lab, as a gateway is"
    ]
    assert refused(TWO, {"hosts": {"x": {"network": "b.lan", "address": "10.9.0.1"}}}) == [
        "10.9.0.1 is not in network b.lan"
    ]
    assert refused(TWO, {"hosts": {"x": {"network": "b.lan", "address": "10.2.0.1"}}}) == [
        "10.2.0.1 is taken by a gateway"
    ]
    assert refused(TWO, {"gateways": {"a": {"address": "203.0.113.1"}}}) == [
        "a has 198.51.100.1 in the topology, not 203.0.113.1"
    ]
    assert refused(HIDDEN, {"nat": {"box": {"gateways": "b", "address": "198.51.100.10"}}}) == [
        "a and box would both have the WAN address 198.51.100.10"
    ]
    clash = {"gateways": "b", "address": "192.0.2.7", "inside": "192.0.2.0/24"}
    assert refused(HIDDEN, {"nat": {"box": clash}}) == [
        "the network inside box (192.0.2.0/24) overlaps that of its WAN address 192.0.2.7 (192.0.2.0/24)"
    ]
    assert refused(HIDDEN, {"nat": {"box": {"gateways": "b", "inside": "10.2.0.0/24"}}}) == [
        "10.2.0.0/24 of box overlaps another network"
    ]
    assert refused(TWO.replace("10.1.0.0/24", "10.1.0.1/32"), {}) == ["10.1.0.1/32 is too small for a lab"]
    assert refused(TWO, {"hosts": {"internet": {"network": "a.lan"}}}) == [
        "a host would be node 'internet' of the lab, as the node between the gateways is"
    ]


def test_a_node_that_is_not_there_is_answered_with_the_nearest() -> None:
    with pytest.raises(LabError) as caught:
        wired(TWO).node("b-lam")
    assert caught.value.hint == "Did you mean 'b-lan'?"


def test_the_same_lab_under_another_name_has_other_containers_and_the_same_addresses() -> None:
    one = load("clinic-dc")
    two = one.called("clinic-dc-2")
    assert two.nodes == one.nodes
    assert (one.container("dc"), two.container("dc")) == ("ipsecctl-clinic-dc-dc", "ipsecctl-clinic-dc-2-dc")


@pytest.mark.parametrize("name", ["clinic-dc", "mesh-dual-stack", "partner"])
def test_every_lab_that_ships_can_be_wired(name: str) -> None:
    lab = load(name)
    assert lab.description
    assert len({node.name for node in lab.nodes}) == len(lab.nodes)
    for site in lab.topology.sites:
        for network in site.networks:
            assert lab.hosts(site.name, network.name)
    assert [node.managed for node in lab.with_role(Role.GATEWAY)].count(False) == (name == "partner")


def test_a_lab_that_is_not_there_is_answered_with_the_nearest() -> None:
    with pytest.raises(LabError) as caught:
        load("clinic")
    assert caught.value.hint == "Did you mean 'clinic-dc'?"


def test_a_topology_with_errors_is_refused_with_its_findings(tmp_path) -> None:
    (tmp_path / "bad.yaml").write_text("ipsecctl: 1\nname: x\nsites: {a: {network: 1}}\n")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "lab.yaml").write_text("topology: ../bad.yaml\n")
    with pytest.raises(TopologyRefused) as caught:
        load(str(tmp_path / "x"))
    assert any(finding.line == 3 for finding in caught.value.diagnostics)
