"""The first apply on gateways that no tunnel runs on yet: charon is restarted where it must read its options.

With kernel-libipsec a narrower WAN somewhere puts an MTU on charon's routes, which it reads only when it
starts. On the kernel's data path nothing waits for a restart, and the same must hold without one.
"""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("first-apply")]

TOPOLOGY = """\
ipsecctl: 1
name: first-apply
defaults: {control: lab, credential: {psk: "file:secrets/{tunnel}.psk"}}
sites:
  dc: {networks: {servers: [10.10.0.0/24, "fd00:10::/64"]}, gateway: 198.51.100.10}
  clinic-a: {networks: {lan: [10.20.1.0/24, "fd00:20:1::/64"]}, gateway: 203.0.113.20}
  clinic-b: {networks: {lan: 10.20.2.0/24}, gateway: {address: dynamic, behind_nat: true, mtu: 1400}}
tunnels:
  clinics: {hub: dc, spokes: "clinic-*"}
"""


@pytest.fixture(scope="module")
def applied(lab) -> dict:
    """What the plan says that charon is restarted for, and what the first apply says, by gateway."""
    plan = lab.json("plan", lab.file)
    done = lab.json("apply", lab.file, "--yes")  # it ends with status 0
    assert {tunnel["verdict"] for tunnel in done["tunnels"]} == {"up"}
    assert {tuple(gateway["restart_for"]) for gateway in done["gateways"]} == {()}
    announced = {c["gateway"] for c in plan["changes"] if c["part"] == "charon"}
    return {"announced": announced, "restarted": {g["name"] for g in done["gateways"] if g["restarted"]}}


def test_it_restarts_what_it_has_announced(applied, lab, data_path: str) -> None:
    assert applied["restarted"] == applied["announced"]
    if data_path == "libipsec":
        assert applied["announced"] == {*lab.managed}


def test_the_next_one_has_nothing_to_do(applied, lab) -> None:
    assert "Nothing to do" in lab.ipsecctl("apply", lab.file).stdout


def test_every_tunnel_holds_over_the_narrow_link(applied, lab) -> None:
    report = lab.json("probe", "tunnel", lab.file, "--all")
    assert {tunnel["outcome"] for tunnel in report["tunnels"]} == {"holds"}
    sizes = {c["measured"] for t in report["tunnels"] for c in t["checks"] if c["check"] == "mtu"}
    assert max(sizes) < 1400
