"""Every example on real charon and real packets: from one topology file to a proven tunnel.

In mode policy, and what a mode can change in mode route, too, where the kernel has ESP: to that it is
switched while it is up. What runs in the virtual machine of ``make test-kernel`` has the mark ``kernel_for``:
every example is proven there in both modes (of mixed-versions, whose files and packets are those of the mesh,
route), and with clinic-dc whatever else depends on the data path.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from pathlib import Path
from shlex import quote
from typing import Any

import pytest

from ipsecctl.cli._outage import Victim
from ipsecctl.gateway import Container
from ipsecctl.lab import Release, run
from ipsecctl.patience import PATIENCE
from ipsecctl.probe import Outcome

pytestmark = pytest.mark.lab
either = pytest.mark.parametrize(
    "mode", ["policy", pytest.param("route", marks=pytest.mark.esp)], indirect=True, scope="session"
)

every_example = pytest.mark.kernel_for(
    "clinic-dc policy",
    "clinic-dc route",
    "mesh-dual-stack policy",
    "mesh-dual-stack route",
    "mixed-versions route",
    "partner policy",
    "partner route",
)
clinic_dc = pytest.mark.kernel_for("clinic-dc policy", "clinic-dc route")
clinic_dc_route = pytest.mark.kernel_for("clinic-dc route")


@either
@every_example
def test_apply_brings_every_tunnel_up_and_a_second_one_does_nothing(applied):
    again = applied.json("apply", applied.file)
    assert again["nothing_to_do"], json.dumps(again)
    assert [gateway["changes"] for gateway in again["gateways"]] == [0] * len(applied.managed)
    assert {tunnel["verdict"] for tunnel in again["tunnels"]} == {"up"}


@either
def test_after_that_plan_has_nothing_to_do(applied):
    plan = applied.ipsecctl("plan", applied.file, "--detailed-exitcode")
    assert "Nothing to do" in plan.stdout or "0 to create, 0 to change, 0 to remove" in plan.stdout


@either
@clinic_dc
def test_status_is_up_with_spis_that_match_crosswise(applied):
    status = applied.json("status", applied.file)
    assert status["schema"] == "ipsecctl/status/1"
    assert [t["name"] for t in status["tunnels"]] and {t["verdict"] for t in status["tunnels"]} == {"up"}
    for tunnel in status["tunnels"]:
        ends = [spis(end) for end in tunnel["ends"] if end["state"] == "seen"]
        assert all(ends)
        if len(ends) == 2:
            left, right = ends
            assert left == {(out, inbound) for inbound, out in right}


def spis(end: dict[str, Any]) -> set[tuple[str, str]]:
    return {(child["spi_in"], child["spi_out"]) for sa in end["ike_sas"] for child in sa["child_sas"]}


@either
@every_example
def test_probe_holds_for_every_tunnel(applied):
    report = applied.json("probe", "tunnel", applied.file, "--all")
    assert [t["name"] for t in report["tunnels"]] == [t.name for t in applied.topology.tunnels]
    for tunnel in report["tunnels"]:
        assert {check["check"] for check in tunnel["checks"]} >= {
            "arrives", "no-clear", "peers-and-spis", "encapsulation", "mtu", "guard",
        }  # fmt: skip
        assert {check["outcome"] for check in tunnel["checks"]} == {"holds"}, tunnel


@either
@clinic_dc_route
def test_files_and_push_leave_charon_in_the_same_state(applied):
    """What VICI was sent, and what ``swanctl --load-all`` makes of our files (rule 2 of the architecture)."""
    for name in applied.managed:
        pushed = state_of_charon(applied, name)
        applied.charon(name, "stop")
        applied.charon(name, "start")
        assert state_of_charon(applied, name)["conns"] == {}, "a charon just started has nothing"
        load_all(applied, name)
        loaded = state_of_charon(applied, name)
        assert loaded["conns"] and loaded["conns"] == pushed["conns"]
        assert loaded == pushed
    # Nobody has called yet. The first packet does, at the end that has the trap.
    for tunnel in applied.topology.tunnels:
        caller, called = (
            (tunnel.left, tunnel.right) if tunnel.initiator == "left" else (tunnel.right, tunnel.left)
        )
        ping(applied, caller.site, called.site)
    applied.ipsecctl("apply", applied.file, "--yes")
    assert {t["verdict"] for t in applied.json("status", applied.file)["tunnels"]} == {"up"}


@either
@clinic_dc_route
def test_loading_the_files_on_a_live_gateway_changes_nothing(applied):
    before = applied.json("status", applied.file)
    for name in applied.managed:
        load_all(applied, name)
    time.sleep(1)
    after = applied.json("status", applied.file)
    assert [spis(end) for t in after["tunnels"] for end in t["ends"]] == [
        spis(end) for t in before["tunnels"] for end in t["ends"]
    ]
    assert {t["verdict"] for t in after["tunnels"]} == {"up"}
    done = applied.json("apply", applied.file)
    assert done["nothing_to_do"], json.dumps(done)


def load_all(lab, name: str) -> None:
    said = lab.sh(name, "swanctl --load-all 2>&1")
    assert "successfully loaded" in said and "failed" not in said, said


def ping(lab, source: str, destination: str) -> None:
    """Some host of one site reaches some host of the other within a few seconds (flows may narrow it).

    In mode route the kernel says "unreachable" for as long as there is no SA yet, and ping ends with that.
    """
    pairs = [
        (sender.name, str(receiver.address()))
        for sender in lab.lab.hosts(source)
        for receiver in lab.lab.hosts(destination)
    ]
    deadline = time.monotonic() + 10 * PATIENCE
    while time.monotonic() < deadline:
        for sender, address in pairs:
            argv = ["ping", "-nq", "-c", "1", "-W", "1", "-w", f"{round(4 * PATIENCE)}", address]
            if run(lab.lab, sender, argv, timeout_s=10 * PATIENCE).status == 0:
                return
    pytest.fail(f"no host of {source} reaches one of {destination}")


def state_of_charon(lab, name: str) -> dict[str, Any]:
    """All that charon reports of its configuration, the order in which it was loaded apart."""

    async def ask() -> dict[str, Any]:
        async with Container(name, lab.lab.container(name)).vici() as charon:
            await charon.command("flush-certs", {"type": "x509"})  # what peers have sent is no configuration
            conns = await charon.stream("list-conns", "list-conn")
            certs = await charon.stream("list-certs", "list-cert")
            shared = await charon.command("get-shared")
            keys = await charon.command("get-keys")
        return {
            "conns": {conn: message[conn] for message in conns for conn in message},
            "certs": sorted(repr(sorted(cert.items())) for cert in certs),
            "shared": sorted(shared.get("keys", [])),
            "keys": sorted(keys.get("keys", [])),
        }

    return asyncio.run(ask())


@either
@clinic_dc
def test_a_dead_charon_is_named_within_five_seconds_and_nothing_leaks(applied, watched):
    """Only the firewall is left to hold the traffic: routes and interfaces behind it go with charon."""
    tunnel = applied.topology.tunnels[0]
    victim = tunnel.left.gateway.name
    gateway = Victim(applied.lab, victim)
    routes = gateway.holding_routes()
    ways = [("ip", "link", "delete", name) for name in applied.xfrm_interfaces(victim)]
    assert bool(ways) == (applied.mode == "route")
    verdicts: dict[str, Any] = {}

    def outage(traffic) -> None:
        traffic.flows()
        applied.charon(victim, "kill")
        began = time.monotonic()
        verdicts.update(applied.json("status", applied.file, statuses=(1, 3)))
        verdicts["took_s"] = time.monotonic() - began
        for command in (*gateway.second_layer(), *ways):
            assert run(applied.lab, victim, command).status == 0
        before = gateway.dropped()
        traffic.sent(48)
        verdicts["dropped"] = gateway.dropped() - before

    try:
        report = watched(applied, tunnel, f"charon of {victim} killed, only the firewall left", outage)
        assert not gateway.holding_routes()
    finally:
        applied.charon(victim, "start")
        applied.ipsecctl("apply", applied.file, "--yes")
    assert verdicts["took_s"] < 5 * PATIENCE
    seen = next(t for t in verdicts["tunnels"] if t["name"] == tunnel.name)
    assert seen["verdict"] in ("down", "unknown")
    assert any(victim in cause for cause in seen["causes"])
    assert 0 < report.arrived < report.sent, report.evidence
    assert verdicts["dropped"] > 0, "no packet came as far as the firewall"
    assert (report.leaked, report.outcome) == (0, Outcome.HOLDS), report.evidence
    assert gateway.holding_routes() == routes
    assert {t["verdict"] for t in applied.json("status", applied.file)["tunnels"]} == {"up"}


def test_somebody_elses_connection_survives(applied):
    gateway = applied.managed[0]
    foreign = "connections { theirs { remote_addrs = 192.0.2.200\n children { theirs { } } } }"
    applied.sh(gateway, "cat >/etc/swanctl/conf.d/theirs.conf && swanctl --load-conns", foreign.encode())
    applied.ipsecctl("apply", applied.file, "--yes")
    assert "theirs" in state_of_charon(applied, gateway)["conns"]
    applied.sh(gateway, "rm /etc/swanctl/conf.d/theirs.conf && swanctl --load-conns")
    assert "theirs" not in state_of_charon(applied, gateway)["conns"]


def test_secrets_on_gateways_are_for_root_alone(applied):
    for name in applied.managed:
        listed = applied.sh(
            name, "find /etc/swanctl /var/lib/ipsecctl -type f -name '*ipsecctl*' -printf '%m %p\\n'"
        )
        modes = dict(reversed(line.split(maxsplit=1)) for line in listed.splitlines())
        private = {path: mode for path, mode in modes.items() if "secrets" in path or "/private/" in path}
        assert private and set(private.values()) == {"600"}, modes


@either
@clinic_dc
def test_rendered_files_are_what_lies_on_the_gateways(applied, tmp_path: Path):
    """``render``, told the data path that the lab has, writes the bytes that ``apply`` put there."""
    done = applied.sh(applied.managed[0], "/usr/lib/ipsecctl-lab/has-esp && echo kernel || echo libipsec")
    out = tmp_path / "out"
    render = ["render", applied.file, "--out", str(out), "--datapath", done.strip()]
    applied.without_lab(*render)
    for name in applied.managed:
        if done.strip() == "libipsec" and applied.lab.node(name).release is Release.BOOKWORM:
            continue  # what this charon does not know of its own ESP is left out there; see test_versions.py
        rendered = {
            str(file.relative_to(out / name)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in (out / name).rglob("*")
            if file.is_file()
        }
        listed = applied.sh(name, f"cd / && sha256sum {' '.join(map(quote, rendered))}").splitlines()
        assert {path: digest for digest, path in (line.split(maxsplit=1) for line in listed)} == rendered
