"""A gateway that systemd starts loses its power while marked traffic flows, and comes back by itself.

The lab only puts its cables in again; what brings firewall, interfaces, routes, settings and tunnels back is
on the gateway: systemd's units, ours among them, and charon's own files.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from ipsecctl import lab as labs
from ipsecctl.cli._outage import Victim
from ipsecctl.cli._scene import scene_of
from ipsecctl.gateway import container_name
from ipsecctl.lab import INTERNET
from ipsecctl.patience import PATIENCE
from ipsecctl.probe import LeakReport, Outcome, Scene, WanLink, watch_while
from ipsecctl.topology import load_text

GATEWAY = "clinic"
TUNNEL = "clinic-dc"
HOST, FAR_HOST = "clinic-lan", "dc-servers"
BEFORE_S, AFTER_S = 0.2 * PATIENCE, 0.4 * PATIENCE
BACK_S = 15.0 * PATIENCE
"""From the end of the start until packets go through the tunnel again, at most."""

TOPOLOGY = """\
ipsecctl: 1
name: reboot
defaults: {mode: MODE, control: lab, credential: {psk: "file:secrets/{tunnel}.psk"}}
sites:
  clinic: {networks: {lan: 10.20.1.0/24}, gateway: 203.0.113.20}
  dc: {networks: {servers: 10.10.0.0/24}, gateway: 198.51.100.10}
tunnels:
  clinic-dc: {between: [clinic, dc]} # the first calls
"""
LAB = """\
ipsecctl-lab: 1
topology: policy.yaml
gateways:
  clinic: {init: systemd}
"""
UNITS = (
    "nftables.service",
    "ipsecctl-guard.service",
    "network-pre.target",
    "systemd-networkd.service",
    "strongswan.service",
)
"""In the order in which they must have come to be active."""

# All of ours that a power cut takes away, without what differs from one start to the next (numbers, MACs).
OURS = r"""
ip -json -details link show | tr -d '\n'; echo
ip -json address show | tr -d '\n'; echo
for f in -4 -6; do ip $f rule; ip $f route show table all proto 213; done | sed 's/ *$//' | sort
nft -s list table inet ipsecctl
sed -n 's/^\([a-z][^ =*]*\) *=.*/\1/p' /etc/sysctl.d/60-ipsecctl.conf | xargs sysctl
"""

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("reboot")]


@pytest.fixture(scope="module")
def machine(lab_of, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A lab of two sites, one gateway of which systemd starts."""
    folder = tmp_path_factory.mktemp("reboot") / "reboot"
    folder.mkdir()
    for mode in ("policy", "route"):
        (folder / f"{mode}.yaml").write_text(TOPOLOGY.replace("MODE", mode))
    (folder / "lab.yaml").write_text(LAB)
    with lab_of(labs.load(str(folder / "lab.yaml"))) as lab:
        yield lab


def in_mode(lab: Any, mode: str) -> Any:
    """Have the topology applied in a mode, and the tunnel up. What is left to do is asked at the end."""
    text = TOPOLOGY.replace("MODE", mode)
    topology = load_text(text, lab.file.replace("policy.yaml", f"{mode}.yaml")).topology
    assert topology is not None
    lab = replace(lab, topology=topology, mode=mode)
    lab.apply()
    return lab


def scene(lab: Any) -> Scene:
    """The lab's hosts, and only the internet's side of its links: a capture on the gateway dies with it."""
    seen = scene_of(lab.lab)
    links = {}
    for name, link in seen.links.items():
        far = (INTERNET, link.far.container, link.far.interface)
        links[name] = replace(WanLink.between(far, far), gateway=name)
    return replace(seen, links=links)


def reboot(lab: Any) -> float:
    """Cut the gateway's power; return when it has started, with the seconds that took."""
    done = lab.without_lab("lab", "reboot", lab.lab.name, GATEWAY, "--json")
    seconds: float = json.loads(done.stdout)["seconds"]
    return seconds


def watched(lab: Any, during: Callable[[], object]) -> LeakReport:
    """Send marked traffic both ways, do something meanwhile, and return what was on the WAN."""

    def meanwhile() -> None:
        time.sleep(BEFORE_S)
        during()
        time.sleep(AFTER_S)

    (tunnel,) = lab.topology.tunnels
    return watch_while(tunnel, scene(lab), meanwhile)


def no_leak(report: LeakReport) -> None:
    assert 0 < report.arrived < report.sent, report.evidence
    assert (report.outcome, report.leaked) == (Outcome.HOLDS, 0), report.evidence


def ours(lab: Any) -> list[str]:
    """What ipsecctl has made on the gateway: interfaces with addresses, routes, firewall, settings."""
    links, addresses, *rest = lab.sh(GATEWAY, OURS).splitlines()
    said = []
    for link in json.loads(links):
        if link["ifname"].startswith("ix-"):
            info = link["linkinfo"]
            said.append(f"{link['ifname']} {info['info_kind']} {link['mtu']} {info.get('info_data', {})}")
            said.append(f"{link['ifname']} {'UP' in link['flags']} {link.get('ifalias')}")
    for link in json.loads(addresses):
        if link["ifname"].startswith("ix-"):
            said += [f"{link['ifname']} {a['local']}" for a in link["addr_info"] if a["scope"] == "global"]
    return sorted(said) + rest


def active_since(lab: Any, *units: str) -> dict[str, int]:
    """Return when units became active, in microseconds since the machine started; 0 if they did not."""
    show = f"systemctl show -p Id -p ActiveEnterTimestampMonotonic {' '.join(units)}"
    found = {}
    for block in lab.sh(GATEWAY, show).strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines())
        found[values["Id"]] = int(values["ActiveEnterTimestampMonotonic"] or 0)
    return found


def links_up_since(lab: Any) -> int:
    """Return when the first link went up, in the same microseconds, by the journal of systemd-networkd."""
    listed = lab.sh(GATEWAY, "journalctl --boot --unit systemd-networkd --output json --no-pager")
    entries = [json.loads(line) for line in listed.splitlines()]
    ups = [entry for entry in entries if str(entry["MESSAGE"]) in ("wan: Link UP", "lan-lan: Link UP")]
    assert len(ups) >= 2, [entry["MESSAGE"] for entry in entries]
    return min(int(entry["__MONOTONIC_TIMESTAMP"]) for entry in ups)


def until_it_carries(lab: Any) -> float:
    """Wait until a host at the far end, which is called, reaches one behind the gateway; return the seconds
    that took."""
    began = time.monotonic()
    count, near = round(BACK_S / 0.3), lab.lab.node(HOST).address()
    lab.sh(FAR_HOST, f"for n in $(seq {count}); do ping -n -q -c 1 -W 0.3 {near} && exit 0; done; exit 1")
    return time.monotonic() - began


@pytest.mark.kernel
@pytest.mark.parametrize(
    "mode", [pytest.param("route", marks=pytest.mark.esp), "policy"]
)  # what follows is in policy
def test_all_comes_back_by_itself(machine, mode: str, record_property) -> None:
    lab = in_mode(machine, mode)
    before = ours(lab)
    took: list[float] = []

    def during() -> None:
        took.append(reboot(lab))
        took.append(until_it_carries(lab))

    report = watched(lab, during)
    no_leak(report)
    shown = f"started in {took[0]:.1f} s, carries {took[1]:.1f} s after that, at the latest"
    record_property("shown", f"reboot in mode {mode}: {shown}; {report.evidence}")

    assert ours(lab) == before
    assert {tunnel["verdict"] for tunnel in lab.json("status", lab.file)["tunnels"]} == {"up"}
    assert "Nothing to do" in lab.ipsecctl("plan", lab.file).stdout
    lab.ipsecctl("probe", "tunnel", lab.file, TUNNEL)  # exit status 0: every check holds

    since = active_since(lab, *UNITS)
    assert all(since.values()), since
    assert sorted(UNITS, key=lambda unit: since[unit]) == list(UNITS), since
    assert since["ipsecctl-guard.service"] < links_up_since(lab) < since["strongswan.service"]
    assert lab.sh(GATEWAY, "systemctl --failed --no-legend --plain") == ""

    links = json.loads(lab.sh(GATEWAY, "networkctl --json=short list"))["Interfaces"]
    managed = {link["Name"]: link["AdministrativeState"] for link in links}
    assert managed.pop("wan") == managed.pop("lan-lan") == "configured"
    assert set(managed.values()) == {"unmanaged"}
    facts = lab.json("facts", GATEWAY, lab.file)
    assert facts["systemd"]["value"] is facts["networkd"]["value"] is True


def test_before_charon_has_started_nothing_leaves(machine) -> None:
    """The machine is up, its links are, it forwards, and charon is kept from starting: the firewall holds.

    Not in the virtual machine: without charon nothing is in the kernel that one with ESP has and others not.
    """
    lab = in_mode(machine, "policy")
    victim = Victim(lab.lab, GATEWAY)
    lab.sh(GATEWAY, "systemctl --quiet mask strongswan.service")
    try:

        def during() -> None:
            reboot(lab)
            # One layer could hide a fault of the other: the firewall is left alone.
            lab.sh(GATEWAY, "; ".join(" ".join(words) for words in victim.second_layer()))

        report = watched(lab, during)
        held = victim.dropped()
        since = active_since(lab, *UNITS)
        up_since = links_up_since(lab)
        assert lab.sh(GATEWAY, "cat /proc/sys/net/ipv4/ip_forward").strip() == "1"
    finally:
        lab.sh(GATEWAY, "systemctl --quiet unmask strongswan.service; systemctl start strongswan.service")
        lab.sh(GATEWAY, "sh /etc/ipsecctl/guard routes")  # what was taken away above
    until_it_carries(lab)  # nobody behind the gateway has anything to say: it calls all the same
    assert "Nothing to do" in lab.ipsecctl("plan", lab.file).stdout
    no_leak(report)
    assert held > 0
    assert since["strongswan.service"] == 0
    assert 0 < since["ipsecctl-guard.service"] <= since["network-pre.target"] < up_since


def test_a_gateway_without_systemd_has_its_guard_before_its_links(machine) -> None:
    """The lab's own small first process, at the end that is called."""
    lab = in_mode(machine, "policy")
    done = json.loads(lab.without_lab("lab", "reboot", lab.lab.name, "dc", "--json").stdout)
    assert (done["schema"], done["lab"]) == ("ipsecctl/lab-reboot/1", lab.lab.name)
    assert done["node"]["charon"] == "running" and done["node"]["state"] == "running"
    steps = [line.split(maxsplit=1)[1] for line in lab.sh("dc", "cat /run/ipsecctl-lab/boot").splitlines()]
    assert steps == ["links down", "guard in force", "links up", "charon started"]
    victim = Victim(lab.lab, "dc")
    assert victim.dropped() >= 0 and victim.holding_routes()
    assert "Nothing to do" in lab.ipsecctl("plan", lab.file).stdout


def test_a_node_that_docker_alone_has_started_gets_the_hint_to_reboot_it(machine) -> None:
    lab = in_mode(machine, "policy")
    container = container_name(lab.lab.name, "dc")
    try:
        for action in ("kill", "start"):
            subprocess.run(["docker", action, container], check=True, capture_output=True)
        says = f"ipsecctl lab reboot {lab.lab.name} dc"
        status = lab.ipsecctl("status", lab.file, statuses=(1, 3))
        assert says in status.stdout + status.stderr
        assert "charon start" not in status.stdout + status.stderr
        done = lab.json("apply", lab.file, "--yes", statuses=(1,))
        (dc,) = [gateway for gateway in done["gateways"] if gateway["name"] == "dc"]
        assert says in dc["hint"], json.dumps(done)
        assert "without its links" in dc["error"]
    finally:
        done = json.loads(lab.without_lab("lab", "reboot", lab.lab.name, "dc", "--json").stdout)
    assert (done["node"]["charon"], done["node"]["state"]) == ("running", "running")
    assert "Nothing to do" in lab.ipsecctl("plan", lab.file).stdout
