"""A gateway that has lost the way into its own network: what a tunnel brings for it is held, not leaked.

Marked packets come from the far site all the while. The control, in the same test, takes our rules away, too:
then the same watch must see them in clear on the WAN.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ipsecctl.probe import LeakReport, Outcome

LAN_DOWN, CONTROL = "LAN interface down", "LAN interface down, our rules gone: control"

pytestmark = [pytest.mark.lab, pytest.mark.kernel]


def in_lab(name: str, *modes: str) -> Any:
    """Run a test in an example's lab, in these modes."""
    marks = {"route": [pytest.mark.esp]}
    running = [pytest.param(name, marks=pytest.mark.xdist_group(name))]

    def mark(test: Any) -> Any:
        for what, values in (
            ("running", running),
            ("mode", [pytest.param(mode, marks=marks.get(mode, [])) for mode in modes]),
        ):
            test = pytest.mark.parametrize(what, values, indirect=True, scope="session")(test)
        return test

    return mark


clinic_dc = in_lab("clinic-dc", "policy", "route")
mesh = in_lab("mesh-dual-stack", "policy")


def tunnel_of(lab, name: str):
    (tunnel,) = (t for t in lab.topology.tunnels if t.name == name)
    return tunnel


def health(lab, name: str) -> dict[str, Any]:
    told = lab.json("status", lab.file, statuses=(0, 1, 3))["tunnels"]
    (found,) = (t for t in told if t["name"] == name)
    return found


def lan(lab, gateway: str, network: str) -> str:
    """Return the interface by which a gateway is joined to a network."""
    (line,) = lab.sh(gateway, f"ip -o route show {network} proto kernel").splitlines()
    return line.split(" dev ")[1].split()[0]


@contextmanager
def put_back(lab, gateway: str, command: str) -> Iterator[None]:
    """However the body ends, the network is there again, ``apply`` has nothing left to do, and all is up."""
    try:
        yield
    finally:
        lab.sh(gateway, command)
        lab.apply()
    done = lab.json("apply", lab.file)
    assert done["nothing_to_do"], json.dumps(done)
    assert {tunnel["verdict"] for tunnel in done["tunnels"]} == {"up"}


def held(report: LeakReport) -> None:
    assert 0 < report.arrived < report.sent, report.evidence
    assert (report.outcome, report.leaked) == (Outcome.HOLDS, 0), report.evidence


CLINIC, TUNNEL, LAN = "clinic-a", "clinics-clinic-a", "10.20.1.0/24"


@clinic_dc
def test_the_lan_interface_is_down_and_without_our_rules_the_same_is_seen_in_clear(applied, watched):
    interface = lan(applied, CLINIC, LAN)
    seen: dict[str, Any] = {}

    def during(traffic) -> None:
        traffic.flows()
        applied.sh(CLINIC, f"ip link set {interface} down")
        traffic.stops()
        seen["down"] = health(applied, TUNNEL)
        seen["plan"] = applied.json("plan", applied.file)
        applied.sh(CLINIC, f"ip link set {interface} up")
        traffic.flows()

    def without_our_rules(traffic) -> None:
        traffic.flows()
        applied.sh(CLINIC, f"ip rule delete pref 216; ip rule delete pref 217; ip link set {interface} down")
        traffic.stops()
        seen["control"] = health(applied, TUNNEL)

    with put_back(applied, CLINIC, f"ip link set {interface} up"):
        held(watched(applied, tunnel_of(applied, TUNNEL), f"{LAN_DOWN} at {CLINIC}", during))
        control = watched(applied, tunnel_of(applied, TUNNEL), f"{CONTROL} at {CLINIC}", without_our_rules)
    assert (seen["down"]["verdict"], seen["down"]["causes"]) == (
        "down",
        [
            f"{CLINIC}: no route into its network lan {LAN}: what comes out of the tunnel for it is held",
        ],
    )
    (networks,) = (end["networks"] for end in seen["down"]["ends"] if end["gateway"] == CLINIC)
    assert networks == [{"name": "lan", "prefix": LAN, "route": "missing"}]
    (notes,) = (g["notes"] for g in seen["plan"]["gateways"] if g["name"] == CLINIC)
    assert [note["summary"].split(":")[1] for note in notes] == [
        f" no route but a default one into its network lan {LAN}"
    ]
    assert "one_armed: true" in notes[0]["hint"]
    assert seen["plan"]["changes"] == []
    assert control.outcome is Outcome.FAILS
    assert control.leaked > 0
    assert seen["control"]["causes"][-1].endswith(
        "what comes out of the tunnel for it follows a default route, in clear"
    )


NORTH = "north"


@mesh
def test_the_ipv6_address_of_the_lan_is_gone(applied, watched):
    """As after a flap of the interface: the kernel keeps IPv4 addresses then, and no IPv6 ones."""
    (site,) = (s for s in applied.topology.sites if s.name == NORTH)
    (network,) = (p for n in site.networks for p in n.prefixes if p.version == 6)
    (name,) = {n.name for n in site.networks if network in n.prefixes}
    tunnel = next(t for t in applied.topology.tunnels if NORTH in (t.left.gateway.name, t.right.gateway.name))
    interface = lan(applied, NORTH, next(str(p) for n in site.networks for p in n.prefixes if p.version == 4))
    shown = applied.sh(NORTH, f"ip -o -6 address show dev {interface} scope global")
    (address,) = (line.split(" inet6 ")[1].split()[0] for line in shown.splitlines())
    back = f"ip address replace {address} dev {interface} nodad"
    seen: dict[str, Any] = {}

    def during(traffic) -> None:
        traffic.flows()
        applied.sh(NORTH, f"ip address delete {address} dev {interface}")
        traffic.sent(48)
        seen["lost"] = health(applied, tunnel.name)
        applied.sh(NORTH, back)
        traffic.flows()

    with put_back(applied, NORTH, back):
        held(watched(applied, tunnel, f"IPv6 address of the LAN gone at {NORTH}", during))
    assert (seen["lost"]["verdict"], seen["lost"]["causes"]) == (
        "degraded",
        [f"{NORTH}: no route into its network {name} {network}: what comes out of the tunnel for it is held"],
    )
