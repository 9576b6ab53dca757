"""The probe for real: what is broken on purpose fails with the right evidence, and nothing is left behind."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ipsecctl.cli._outage import Victim
from ipsecctl.cli._scene import scene_of
from ipsecctl.lab import Lab, down, load, run, up
from ipsecctl.patience import PATIENCE
from ipsecctl.probe import Outcome, watch_while
from ipsecctl.resources import resource_dir

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("probe")]

NAME = "t-probe"
TUNNEL = "clinics-clinic-a"
CHARON = "/usr/lib/ipsecctl-lab/charon"
NO_FIREWALL = "nft delete table inet ipsecctl"
FIREWALL = "nft -f /etc/ipsecctl/firewall.nft"
ROUTES = "sh /etc/ipsecctl/guard routes"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A copy of clinic-dc that nobody else works in, with its tunnels up."""
    folder = tmp_path_factory.mktemp("probe")
    (folder / "topologies").mkdir()
    shutil.copy(resource_dir("topologies") / "clinic-dc.yaml", folder / "topologies")
    lab = load(str(shutil.copytree(resource_dir("labs") / "clinic-dc", folder / "labs" / NAME)))
    down(lab.name)
    try:
        up(lab)
        done = ipsecctl("apply", lab.topology.file, "--yes", "--lab", NAME)
        assert done.returncode == 0, done.stderr
        yield lab
    finally:
        down(lab.name)


def ipsecctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ipsecctl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90 * PATIENCE, check=False)


def probe(lab: Lab, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = ipsecctl(
        "probe", "tunnel", lab.topology.file, *(arguments or [TUNNEL]), "--json", "--lab", lab.name
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def checks(document: dict[str, Any], name: str, direction: str = "") -> list[dict[str, Any]]:
    (tunnel,) = document["tunnels"]
    return [c for c in tunnel["checks"] if c["check"] == name and direction in c["direction"]]


def sh(lab: Lab, node: str, command: str) -> None:
    done = run(lab, node, ["sh", "-c", command])
    assert done.status == 0, done.stderr.decode()


@contextmanager
def broken(lab: Lab, node: str, how: str, mend: str) -> Iterator[None]:
    sh(lab, node, how)
    try:
        yield
    finally:
        sh(lab, node, mend)


def running_in(lab: Lab) -> Counter[str]:
    """Count what of the probe runs in the containers of a lab."""
    found: Counter[str] = Counter()
    for node in lab.nodes:
        top = subprocess.run(
            ["docker", "top", lab.container(node.name)], capture_output=True, text=True, check=True
        )
        found.update(word for word in ("tcpdump", "wirekit") if word in top.stdout)
    return found


def wait_until(holds: Callable[[], bool], limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s * PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_all_tunnels_hold_in_time(lab: Lab) -> None:
    began = time.monotonic()
    status, document = probe(lab, "--all")
    assert status == 0, json.dumps(document)
    assert time.monotonic() - began < 15 * PATIENCE  # some 4 s on an idle machine
    assert document["schema"] == "ipsecctl/probe-tunnel/1"
    assert [(t["name"], t["outcome"], len(t["checks"])) for t in document["tunnels"]] == [
        ("clinics-clinic-a", "holds", 30),
        ("clinics-clinic-b", "holds", 30),
    ]
    nat = next(t for t in document["tunnels"] if t["name"] == "clinics-clinic-b")
    assert {c["measured"] for c in nat["checks"] if c["check"] == "encapsulation"} == {"UDP 4500"}
    assert not running_in(lab)


def test_the_table_has_a_row_for_each_check_and_direction(lab: Lab) -> None:
    done = ipsecctl("probe", "tunnel", lab.topology.file, TUNNEL, "--lab", lab.name)
    assert done.returncode == 0
    assert "clinics-clinic-a: holds" in done.stdout
    assert done.stdout.count("dc -> clinic-a IPv4") == 7
    assert done.stdout.count("table inet ipsecctl is loaded as it was") == 2
    assert "30 hold." in done.stdout


def test_mss_clamp_removed(lab: Lab) -> None:
    flush = "nft flush chain inet ipsecctl clamp"
    with broken(lab, "dc", flush, FIREWALL), broken(lab, "clinic-a", flush, FIREWALL):
        status, document = probe(lab)
    assert status == 1
    for name in ("mss-syn", "mss-syn-ack"):
        assert {(c["outcome"], c["measured"]) for c in checks(document, name)} == {("fails", 1460)}
    assert {c["outcome"] for c in checks(document, "mtu")} == {"holds"}


def test_no_leak_rule_removed_and_a_route_in_clear(lab: Lab) -> None:
    past_the_tunnel = (
        "nft flush chain inet ipsecctl leaving; ip route del unreachable 10.10.0.0/24;"
        "ip rule add pref 100 to 10.10.0.0/24 lookup main"
    )
    with broken(lab, "clinic-a", past_the_tunnel, f"ip rule del pref 100; {FIREWALL}; {ROUTES}"):
        status, document = probe(lab)
    assert status == 1
    to_servers = [
        c for c in checks(document, "no-clear", "clinic-a -> dc") if c["destination"] == "dc-servers"
    ]
    assert to_servers[0]["outcome"] == "fails"
    assert "clinic-a:wan, internet:to-clinic-a" in to_servers[0]["evidence"]
    assert "10.20.1.10 -> 10.10.0.10" in to_servers[0]["evidence"]
    to_imaging = [
        c for c in checks(document, "no-clear", "clinic-a -> dc") if c["destination"] == "dc-imaging"
    ]
    assert to_imaging[0]["outcome"] == "holds"


def test_icmp_blocked(lab: Lab) -> None:
    block = (
        "nft add table ip broken; nft add chain ip broken out '{ type filter hook output priority 0; }';"
        "nft add rule ip broken out icmp type destination-unreachable drop"
    )
    with broken(lab, "clinic-a", block, "nft delete table ip broken"):
        status, document = probe(lab)
    assert status == 1
    assert {c["outcome"] for c in checks(document, "mtu", "dc -> clinic-a")} == {"holds"}
    for check in checks(document, "mtu", "clinic-a -> dc"):
        assert (check["outcome"], check["measured"]) == ("fails", check["expected"])
        assert 'no "fragmentation needed" comes back: a black hole' in check["evidence"]


def test_mtu_lowered_in_the_path(lab: Lab) -> None:
    # AES-GCM: floor((1300 - 20 - 8 - 8 - 16) / 4) * 4 - 2 = 1246 bytes of inner packet fit.
    forget = "ip route flush cache"
    with broken(lab, "internet", "ip link set to-clinic-a mtu 1300", "ip link set to-clinic-a mtu 1500"):
        try:
            status, document = probe(lab)
        finally:
            sh(lab, "dc", forget)
            sh(lab, "clinic-a", forget)
    assert status == 1
    for check in checks(document, "mtu", "dc -> clinic-a"):
        assert (check["outcome"], check["measured"]) == ("fails", 1246)
        assert check["expected"] > 1246
        assert "measured 1246; 1247 crosses the WAN only with its ESP in fragments" in check["evidence"]


def test_one_direction_dropped(lab: Lab) -> None:
    block = (
        "nft add table ip broken; nft add chain ip broken through '{ type filter hook forward priority 0; }';"
        "nft add rule ip broken through ip saddr 198.51.100.10 ip daddr 203.0.113.20 meta l4proto esp drop"
    )
    with broken(lab, "internet", block, "nft delete table ip broken"):
        status, document = probe(lab)
    assert status == 1
    assert {c["outcome"] for c in checks(document, "arrives", "clinic-a -> dc")} == {"holds"}
    assert {(c["outcome"], c["measured"]) for c in checks(document, "arrives", "dc -> clinic-a")} == {
        ("fails", 0)
    }
    assert {c["outcome"] for c in checks(document, "no-clear", "dc -> clinic-a")} == {"could not run"}


def status(lab: Lab) -> tuple[int, dict[str, Any]]:
    done = ipsecctl("status", lab.topology.file, "--json", "--lab", lab.name)
    return done.returncode, {tunnel["name"]: tunnel for tunnel in json.loads(done.stdout)["tunnels"]}


def apply(lab: Lab) -> None:
    done = ipsecctl("apply", lab.topology.file, "--yes", "--lab", lab.name)
    assert done.returncode == 0, done.stdout + done.stderr


def guards(document: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
    return {c["direction"]: (c["outcome"], c["measured"]) for c in checks(document, "guard")}


def test_a_deleted_firewall_degrades_and_fails_and_apply_mends_it(lab: Lab) -> None:
    sh(lab, "clinic-a", NO_FIREWALL)
    try:
        code, tunnels = status(lab)
        probed, document = probe(lab)
    finally:
        apply(lab)
    assert (code, probed) == (1, 1)
    assert {name: tunnel["verdict"] for name, tunnel in tunnels.items()} == {
        TUNNEL: "degraded",
        "clinics-clinic-b": "up",
    }
    assert any("clinic-a" in cause and "firewall" in cause for cause in tunnels[TUNNEL]["causes"])
    assert guards(document) == {
        "at clinic-a": ("fails", "missing, forwards"),
        "at dc": ("holds", "loaded, forwards"),
    }
    assert {c["outcome"] for c in checks(document, "arrives")} == {"holds"}, "packets alone do not show it"
    assert status(lab)[0] == 0
    assert {outcome for outcome, _ in guards(probe(lab)[1]).values()} == {"holds"}


@pytest.mark.parametrize(
    ("how", "measured"),
    [
        ("nft flush chain inet ipsecctl leaving", "altered, forwards"),
        ("sysctl -qw net.ipv4.ip_forward=0", "loaded, does not forward"),
    ],
)
def test_a_guard_that_was_changed_by_hand_fails(lab: Lab, how: str, measured: str) -> None:
    sh(lab, "dc", how)
    try:
        code, document = probe(lab)
    finally:
        apply(lab)
    assert code == 1
    assert guards(document) == {"at clinic-a": ("holds", "loaded, forwards"), "at dc": ("fails", measured)}
    assert status(lab)[0] == 0


def test_the_firewall_alone_holds_what_a_dead_charon_lets_go_and_without_it_the_watch_sees_a_leak(
    lab: Lab,
) -> None:
    """The rules proven without the routes behind them; and the control: with neither, there are leaks."""
    (tunnel,) = (t for t in lab.topology.tunnels if t.name == TUNNEL)
    victim = Victim(lab, "clinic-a")
    routes = victim.holding_routes()
    dropped: list[int] = []

    def bare_outage() -> None:
        sh(lab, "clinic-a", f"{CHARON} kill")
        for command in victim.second_layer():
            assert run(lab, "clinic-a", command).status == 0
        time.sleep(0.7 * PATIENCE)

    def guarded_outage() -> None:
        time.sleep(0.3 * PATIENCE)
        before = victim.dropped()
        bare_outage()
        dropped.append(victim.dropped() - before)

    def back_up() -> None:
        sh(lab, "clinic-a", f"{CHARON} start")
        apply(lab)

    try:
        guarded = watch_while(tunnel, scene_of(lab), guarded_outage)
        assert not victim.holding_routes()
        back_up()
        assert victim.holding_routes() == routes
        sh(lab, "clinic-a", NO_FIREWALL)
        bare = watch_while(tunnel, scene_of(lab), bare_outage)
    finally:
        back_up()
    assert (guarded.outcome, guarded.leaked) == (Outcome.HOLDS, 0), guarded
    assert 0 < guarded.arrived < guarded.sent
    assert dropped[0] > 0
    assert bare.outcome is Outcome.FAILS
    assert bare.leaked > 0
    assert "in clear, the first at clinic-a:wan: 10.20.1.10 -> 10.10." in bare.evidence
    assert victim.holding_routes() == routes
    assert status(lab)[0] == 0


def test_a_dead_charon_is_no_proof_of_anything(lab: Lab) -> None:
    with broken(lab, "clinic-a", f"{CHARON} kill", f"{CHARON} start"):
        status, document = probe(lab)
    assert ipsecctl("apply", lab.topology.file, "--yes", "--lab", lab.name).returncode == 0
    assert status == 1
    assert {c["outcome"] for c in checks(document, "arrives")} == {"fails"}
    for name in ("no-clear", "peers-and-spis", "mtu", "mss-syn"):
        assert {c["outcome"] for c in checks(document, name)} == {"could not run"}, name
    assert {c["outcome"] for c in checks(document, "guard")} == {"holds"}, "it needs no charon"
    assert "charon is not running" in checks(document, "peers-and-spis", "dc -> clinic-a")[0]["evidence"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_runs_on_after_an_end_of_any_kind(lab: Lab, how: signal.Signals) -> None:
    command = [
        sys.executable,
        "-m",
        "ipsecctl",
        "probe",
        "tunnel",
        lab.topology.file,
        "--all",
        "--lab",
        lab.name,
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        wait_until(lambda: running_in(lab)["tcpdump"] > 0)
        process.send_signal(how)
        process.wait(timeout=10 * PATIENCE)
    wait_until(lambda: not running_in(lab))
    if how is signal.SIGINT:
        assert process.returncode == 130
