"""What is made of a lab: Compose document, scripts, rules, drawings. Pure, and the same for the same lab.

The golden files are written anew with ``IPSECCTL_UPDATE=1``; read the difference before keeping it.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from netaddr import IPNetwork

from ipsecctl.errors import LabError
from ipsecctl.lab import GraphFormat, Init, Lab, Release, draw, load
from ipsecctl.lab.compose import LABEL_DIGEST, choose_subnets, document
from ipsecctl.lab.firewall import internet_rules, machine_rules, nat_rules
from ipsecctl.lab.networkd import network_files
from ipsecctl.lab.script import check, configure, read_look

GOLDEN = Path(__file__).parent / "golden"
LABS = ["clinic-dc", "mesh-dual-stack", "mixed-versions", "partner"]


def golden(name: str, text: str) -> None:
    file = GOLDEN / name
    if os.environ.get("IPSECCTL_UPDATE"):
        file.write_text(text)
    assert text == file.read_text()


def plan(name: str) -> str:
    """Return the address plan of a lab: every interface and route of every node."""
    lines = []
    for node in load(name).nodes:
        lines.append(f"{node.name} ({node.role})")
        for interface in node.interfaces:
            addresses = " ".join(map(str, interface.addresses))
            lines.append(f"    {interface.name} on {interface.link} mtu {interface.mtu}: {addresses}")
        lines += [f"    route {r.prefix} via {r.via} dev {r.interface}" for r in node.routes]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", LABS)
def test_address_plan(name: str) -> None:
    golden(f"{name}.plan.txt", plan(name))


@pytest.mark.parametrize("name", LABS)
def test_graph(name: str) -> None:
    golden(f"{name}.graph.txt", draw(load(name)))


@pytest.mark.parametrize("form", [GraphFormat.DOT, GraphFormat.MERMAID])
def test_graph_for_documents(form: GraphFormat) -> None:
    golden(f"clinic-dc.graph.{form}", draw(load("clinic-dc"), form))


def test_compose_document() -> None:
    lab = load("clinic-dc")
    labels = {LABEL_DIGEST: "0123456789abcdef"}
    made = document(lab, {Release.FORKY: "ipsecctl-lab:latest"}, choose_subnets(lab, ()), labels)
    golden("clinic-dc.compose.json", json.dumps(made, indent=2) + "\n")


def test_each_gateway_has_the_image_of_its_release() -> None:
    lab = load("mixed-versions")
    assert lab.releases == (Release.FORKY, Release.BOOKWORM, Release.TRIXIE)
    made = document(lab, {release: f"image-{release}" for release in Release}, choose_subnets(lab, ()))
    images = {name: service["image"] for name, service in made["services"].items()}
    assert images.pop("bookworm") == "image-bookworm" and images.pop("trixie") == "image-trixie"
    assert set(images.values()) == {"image-forky"}
    assert load("clinic-dc").releases == (Release.FORKY,)


def with_systemd(name: str, gateway: str) -> Lab:
    lab = load(name)
    nodes = (replace(node, init=Init.SYSTEMD) if node.name == gateway else node for node in lab.nodes)
    return replace(lab, nodes=tuple(nodes))


def test_a_gateway_with_systemd_may_mount_and_does_not_forward_by_itself() -> None:
    lab = with_systemd("clinic-dc", "clinic-a")
    made = document(lab, {Release.FORKY: "i"}, choose_subnets(lab, ()))["services"]
    assert made["clinic-a"]["command"] == ["gateway", "systemd"]
    assert made["clinic-a"]["cap_add"] == ["NET_ADMIN", "NET_RAW", "SYS_ADMIN"]
    assert made["clinic-a"]["sysctls"] == {"net.ipv4.ip_forward": "0"}
    assert "SYS_ADMIN" not in made["clinic-b"]["cap_add"]
    assert made["clinic-b"]["command"] == ["gateway"]


@pytest.mark.parametrize("again", [False, True])
def test_a_gateway_with_systemd_has_its_network_from_its_own_files(again: bool) -> None:
    lab = with_systemd("mesh-dual-stack", "north")
    macs = {i.link: "02:00:00:00:00:00" for i in lab.node("north").interfaces}
    script = configure(lab, lab.node("north"), macs, {"/etc/swanctl/conf.d/x.conf": b"x"}, again=again)
    assert "name_interface 02:00:00:00:00:00 wan 02:" in script
    assert "ip -batch" not in script and "address add" not in script
    assert ("/etc/systemd/network/20-wan.network" in script) != again
    assert ("swanctl --load-all" in script) != again
    files = network_files(lab.node("north"))
    assert list(files) == [
        "/etc/systemd/network/20-wan.network",
        "/etc/systemd/network/20-lan-lan.network",
    ]
    golden("mesh-dual-stack.north.network", "\n".join(files.values()))


def test_a_node_keeps_its_mac_addresses() -> None:
    lab = load("clinic-dc")
    macs = {i.link: "02:00:00:00:00:00" for i in lab.node("dc").interfaces}
    first, again = (configure(lab, lab.node("dc"), macs, {}, again=again) for again in (False, True))
    own = [line.split()[3] for line in first.splitlines() if line.startswith("name_interface 02")]
    assert len(set(own)) == 3
    assert own == [line.split()[3] for line in again.splitlines() if line.startswith("name_interface 02")]
    assert own[0] not in configure(lab.called("other"), lab.node("dc"), macs, {})


def test_two_labs_share_no_name() -> None:
    lab = load("clinic-dc")
    one, two = (document(x, {Release.FORKY: "i"}, choose_subnets(x, ())) for x in (lab, lab.called("other")))

    def names(made: dict) -> set[str]:
        bridges = {n["driver_opts"]["com.docker.network.bridge.name"] for n in made["networks"].values()}
        networks = {n["name"] for n in made["networks"].values()}
        subnets = {n["ipam"]["config"][0]["subnet"] for n in made["networks"].values()}
        return (
            {made["name"]}
            | bridges
            | networks
            | subnets
            | {s["container_name"] for s in made["services"].values()}
        )

    assert not names(one) & names(two)


def test_subnets_of_others_are_left_alone() -> None:
    lab = load("clinic-dc")
    first = choose_subnets(lab, ())
    second = choose_subnets(lab, [*first.values(), IPNetwork("10.0.0.0/8")])
    assert not set(first.values()) & set(second.values())
    assert list(second) == [link.name for link in lab.links]
    with pytest.raises(LabError):
        choose_subnets(lab, [IPNetwork("198.18.0.0/15")])


def test_scripts() -> None:
    lab = load("clinic-dc")
    for node in ("internet", "clinic-b-box", "dc", "dc-servers"):
        macs = {i.link: f"02:00:00:00:00:{n:02x}" for n, i in enumerate(lab.node(node).interfaces)}
        golden(f"clinic-dc.{node}.sh", configure(lab, lab.node(node), macs, {}))


def test_an_ipv6_node_takes_ipv6_at_the_wan_and_has_no_address_there() -> None:
    lab = load("mesh-dual-stack")
    macs = {i.link: "02:00:00:00:00:00" for i in lab.node("north").interfaces}
    script = configure(lab, lab.node("north"), macs, {})
    assert "set_sysctl ipv6/conf/lan-lan/disable_ipv6 0" in script
    assert "set_sysctl ipv6/conf/wan/addr_gen_mode 1" in script
    assert "set_sysctl ipv6/conf/wan/disable_ipv6 0" in script
    box = configure(lab, lab.node("internet"), {i.link: "" for i in lab.node("internet").interfaces}, {})
    assert "set_sysctl ipv6/conf/to-north/disable_ipv6 1" in box
    assert "address add fd00:1::1/64 dev lan-lan nodad" in script


def test_files_are_put_into_a_node_for_root_only_and_loaded() -> None:
    lab = load("partner")
    macs = {i.link: "02:00:00:00:00:00" for i in lab.node("labco").interfaces}
    script = configure(lab, lab.node("labco"), macs, {"/etc/swanctl/conf.d/it's.conf": b"\x00\xff"})
    assert "base64 -d >'/etc/swanctl/conf.d/it'\"'\"'s.conf' <<'END_OF_INPUT'\nAP8=\nEND_OF_INPUT\n" in script
    assert script.index("umask 077") < script.index("base64 -d") < script.index("swanctl --load-all")


def test_check_asks_every_next_hop() -> None:
    lab = load("mesh-dual-stack")
    assert "10.11.0.1 " in check(lab.node("north-lan"))
    assert "fd00:1::1 " in check(lab.node("north-lan"))
    assert check(lab.node("internet")) == "true\n"


def test_rules() -> None:
    lab = load("clinic-dc")
    golden("clinic-dc.internet.nft", internet_rules(lab))
    golden("clinic-dc.machine.nft", machine_rules(lab))
    box = lab.node("clinic-b-box").nat
    assert box is not None
    golden("clinic-dc.nat.nft", nat_rules(box))


def test_a_look_is_read() -> None:
    link = {"ifname": "wan", "addr_info": [{"local": "192.0.2.1", "prefixlen": 24, "scope": "global"}]}
    seen = read_look("running libipsec\n" + json.dumps([{"ifname": "lo", "addr_info": []}, link]))
    assert (seen.charon, seen.data_path, dict(seen.addresses)) == (
        "running",
        "libipsec",
        {"wan": ("192.0.2.1/24",)},
    )


@pytest.mark.parametrize("output", ["", "running\n[]", "a b\nnot json", "a b\n[{}, 1]"])
def test_a_look_that_is_none_is_refused(output: str) -> None:
    with pytest.raises(LabError):
        read_look(output)
