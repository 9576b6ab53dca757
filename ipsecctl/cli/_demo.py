"""The main job, start to proof, in a lab: each command before its output, at the end a table of figures."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipsecctl.cli._outage import Victim
from ipsecctl.cli._scene import scene_of
from ipsecctl.cli._view import console, paint, terminal_width
from ipsecctl.errors import LabError
from ipsecctl.lab import Lab, known
from ipsecctl.probe import LeakReport, Outcome, watch_while

__all__ = [
    "Proof",
    "demo",
    "proof_of_routes",
    "proofs_of_apply",
    "proofs_of_outage",
    "proofs_of_probe",
    "proofs_of_status",
]

_CHARON = "/usr/lib/ipsecctl-lab/charon"
_OUTAGE_S = 1.5
_PLAIN_WIDTH = 170


@dataclass(frozen=True, slots=True)
class Proof:
    """One row of the table: what is claimed, what was computed or is wanted, what was measured."""

    claim: str
    expected: str
    measured: str
    holds: bool


class _Shell:
    """Runs commands of ipsecctl, showing each as a user would type it."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def run(self, *args: str, statuses: tuple[int, ...] = (0,)) -> int:
        """Show and run ``ipsecctl ARGS``; raise ``LabError`` when it ends with none of ``statuses``."""
        line = "ipsecctl " + " ".join(args)
        print(f"\n{paint(f'$ {line}', 'bold', sys.stdout)}", flush=True)
        status = subprocess.run(self._argv(args), check=False).returncode
        if status not in statuses:
            raise LabError(f"'{line}' ended with {status}", "Its output above says why.")
        return status

    def read(self, *args: str) -> dict[str, Any]:
        """Run ``ipsecctl ARGS`` quietly and return the JSON document it prints."""
        done = subprocess.run(self._argv(args), check=False, capture_output=True)
        try:
            document: dict[str, Any] = json.loads(done.stdout)
        except ValueError as exc:
            said = done.stderr.decode()[-300:]
            raise LabError(f"'ipsecctl {' '.join(args)}' printed no JSON: {said}") from exc
        return document

    @staticmethod
    def _argv(args: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "ipsecctl", *args]


def demo(lab: Lab, out: Path) -> bool:
    """Bring a lab up and prove its topology in it; return whether every proof holds.

    Rendered files and the probe's report are left in ``out``. The lab stays up.
    """
    shell = _Shell()
    file, report = lab.topology.file, out / "probe.json"
    # A lab that is called as its topology is where the topology says that its gateways are.
    where = () if lab.name == lab.topology.name else ("--lab", lab.name)
    place = lab.name if lab.name in known() else str(Path(lab.file).parent)
    out.mkdir(parents=True, exist_ok=True)
    shell.run("lab", "up", place)
    shell.run("validate", file)
    shell.run("render", file, "--out", str(out / "files"), *_data_path(shell, lab))
    shell.run("plan", file, *where)
    shell.run("apply", file, "--yes", *where)
    shell.run("apply", file, *where)
    again = shell.read("apply", file, *where, "--json")
    shell.run("status", file, *where, statuses=(0, 1, 3))
    status = shell.read("status", file, *where, "--json")
    shell.run("probe", "tunnel", file, "--all", "--report", str(report), *where, statuses=(0, 1, 3))
    probe = json.loads(report.read_text())
    rows = [*proofs_of_apply(again), *proofs_of_status(status), *proofs_of_probe(probe)]
    rows += _without_charon(shell, lab, where)
    _print_table(rows, time.monotonic() - shell.began)
    return all(row.holds for row in rows)


def _data_path(shell: _Shell, lab: Lab) -> list[str]:
    """Return the option that tells ``render`` what ``datapath: auto`` is on this machine."""
    (status,) = shell.read("lab", "status", lab.name, "--json")["labs"]
    found = {node["data_path"] for node in status["nodes"] if node["role"] == "gateway"}
    return ["--datapath", found.pop()] if len(found) == 1 else []


def proofs_of_apply(again: dict[str, Any]) -> Iterator[Proof]:
    """A second apply finds nothing to do."""
    changes = sum(gateway["changes"] for gateway in again["gateways"])
    yield Proof("a second apply changes nothing", "0 changes", f"{changes} changes", again["nothing_to_do"])


def proofs_of_status(status: dict[str, Any], claim: str = "up at both ends, SPIs matched") -> Iterator[Proof]:
    """Every tunnel is INSTALLED at both ends, with SPIs that match crosswise."""
    total = len(status["tunnels"])
    up = sum(tunnel["verdict"] == "up" for tunnel in status["tunnels"])
    yield Proof(claim, f"{total} tunnels", f"{up} tunnels", 0 < total == up)


def proofs_of_probe(probe: dict[str, Any]) -> Iterator[Proof]:
    """One row for each tunnel and kind of check; the figures of its directions and flows side by side."""
    for tunnel in probe["tunnels"]:
        if not tunnel["checks"]:
            yield Proof(f"{tunnel['name']}: probed", "checks", "none ran", False)
        kinds: dict[str, list[dict[str, Any]]] = {}
        for check in tunnel["checks"]:
            kinds.setdefault(check["claim"], []).append(check)
        for claim, checks in kinds.items():
            holds = all(check["outcome"] == "holds" for check in checks)
            expected = "; ".join(dict.fromkeys(str(check["expected"]) for check in checks))
            yield Proof(f"{tunnel['name']}: {claim}", expected, _figures(checks), holds)


def _figures(checks: list[dict[str, Any]]) -> str:
    """Return what was measured, each figure once, and of what did not hold the evidence."""
    figures = dict.fromkeys(
        str(check["measured"])
        if check["outcome"] == "holds"
        else f"{check['direction']}: {check['evidence']}"
        for check in checks
    )
    return "; ".join(figures)


def _without_charon(shell: _Shell, lab: Lab, where: tuple[str, ...]) -> Iterator[Proof]:
    """charon dies at one end of the first tunnel while marked traffic goes on; then it comes back.

    What else than the firewall could hold the traffic back goes with it, so that the firewall alone is left.
    """
    tunnel, file = lab.topology.tunnels[0], lab.topology.file
    victim = next(e.gateway.name for e in (tunnel.left, tunnel.right) if e.gateway.managed)
    gateway = Victim(lab, victim)
    routes = gateway.holding_routes()
    dropped: list[int] = []

    def outage() -> None:
        shell.run("lab", "exec", lab.name, victim, "--", _CHARON, "kill")
        shell.run("status", file, *where, statuses=(0, 1, 3))
        for command in gateway.second_layer():
            shell.run("lab", "exec", lab.name, victim, "--", *command)
        before = gateway.dropped()
        time.sleep(_OUTAGE_S)
        dropped.append(gateway.dropped() - before)
        shell.run("lab", "exec", lab.name, victim, "--", _CHARON, "start")

    report = watch_while(tunnel, scene_of(lab), outage)
    shell.run("apply", file, "--yes", *where, statuses=(0, 1))
    status = shell.read("status", file, *where, "--json")
    yield from proofs_of_outage(tunnel.name, victim, report, dropped[0])
    if routes:
        yield proof_of_routes(victim, routes, gateway.holding_routes())
    yield from proofs_of_status(status, "up again, charon being back")


def proofs_of_outage(tunnel: str, victim: str, report: LeakReport, dropped: int) -> Iterator[Proof]:
    """Nothing left in clear, and it was the firewall that dropped what would have."""
    yield Proof(
        f"{tunnel}: packets in clear, charon on {victim} dead and its firewall alone",
        "0",
        f"{report.leaked} of {report.sent} sent, {report.wan_packets} WAN packets looked at",
        report.outcome is Outcome.HOLDS,
    )
    yield Proof(
        f"{tunnel}: packets that this firewall dropped meanwhile", "1 or more", f"{dropped}", dropped > 0
    )


def proof_of_routes(victim: str, before: frozenset[str], after: frozenset[str]) -> Proof:
    """The holding routes that were taken away are there again."""
    back = len(before & after)
    return Proof(
        f"{victim}: holding routes that the apply put back", f"{len(before)}", f"{back}", back == len(before)
    )


def _print_table(rows: list[Proof], seconds: float) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in ("what was proven", "computed or wanted", "measured"):
        table.add_column(title, overflow="fold")
    table.add_column("", no_wrap=True)
    for row in rows:
        verdict = Text("holds", style="green") if row.holds else Text("FAILS", style="bold red")
        table.add_row(Text(row.claim), Text(row.expected), Text(row.measured), verdict)
    print()
    console(terminal_width() or _PLAIN_WIDTH).print(table)
    held = sum(row.holds for row in rows)
    print(f"\n{held} of {len(rows)} hold, in {seconds:.0f} s.")
