"""A data centre and two clinics, one of them dual-stack and one behind NAT: to take ways from and mend them.

A lab's tests have ``TOPOLOGY = topology("NAME")``, and the fixture ``lab`` of conftest.py.
"""

from __future__ import annotations

from typing import Any

TUNNEL, NEIGHBOUR = "all-a", "all-b"
HOSTS = {4: "10.10.0.10", 6: "fd00:10::10"}

_TOPOLOGY = """\
ipsecctl: 1
name: NAME
defaults: {control: lab, credential: {psk: "file:secrets/{tunnel}.psk"}}
sites:
  dc: {networks: {servers: [10.10.0.0/24, "fd00:10::/64"]}, gateway: 198.51.100.10}
  a: {networks: {lan: [10.20.1.0/24, "fd00:20:1::/64"]}, gateway: 203.0.113.20}
  b: {networks: {lan: 10.20.2.0/24}, gateway: {address: dynamic, behind_nat: true}}
tunnels:
  all: {hub: dc, spokes: [a, b]}
"""


def topology(name: str) -> str:
    return _TOPOLOGY.replace("NAME", name)


def tunnels(lab: Any) -> dict[str, dict[str, Any]]:
    told = lab.json("status", lab.file, statuses=(0, 1))["tunnels"]
    return {tunnel["name"]: tunnel for tunnel in told}


def verdicts(lab: Any) -> dict[str, str]:
    return {name: tunnel["verdict"] for name, tunnel in tunnels(lab).items()}


def planned(lab: Any, gateway: str) -> dict[str, Any]:
    """Return what the plan says of one gateway."""
    (found,) = [each for each in lab.json("plan", lab.file)["gateways"] if each["name"] == gateway]
    return dict(found)


def spis(lab: Any, gateway: str = "a", tunnel: str = TUNNEL) -> list[str]:
    listed = lab.sh(gateway, f"swanctl --list-sas --ike {tunnel}").splitlines()
    return [line.split(",")[0].strip() for line in listed if line.startswith(("    in ", "    out "))]


def arrives(lab: Any, host: str = "a-lan", family: int = 4) -> bool:
    """Whether a host of a site reaches the data centre's."""
    said = lab.sh(host, f"ping -c 3 -i 0.2 -W 1 {HOSTS[family]} >/dev/null && echo yes", statuses=(0, 1))
    return "yes" in said


def mended(lab: Any) -> None:
    """Assert that one apply puts everything right, and leaves nothing to do."""
    lab.ipsecctl("apply", lab.file, "--yes")
    assert verdicts(lab) == {TUNNEL: "up", NEIGHBOUR: "up"}
    assert "Nothing to do" in lab.ipsecctl("plan", lab.file, "--detailed-exitcode").stdout
    assert arrives(lab), "IPv4"
    assert arrives(lab, family=6), "IPv6"
    assert arrives(lab, "b-lan"), "the neighbour"
