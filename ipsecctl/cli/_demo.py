"""The main job, start to proof, in a lab: each command before its output, at the end a table of figures."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipsecctl.cli._view import paint
from ipsecctl.errors import LabError

if TYPE_CHECKING:
    from ipsecctl.topology import Topology

_CHARON = ("/usr/lib/ipsecctl-lab/charon",)
_OUTAGE_S = 1.5

__all__ = ["Proof", "demo", "proofs_of_apply", "proofs_of_probe", "proofs_of_status"]


@dataclass(frozen=True, slots=True)
class Proof:
    """One row of the table: what is claimed, what was measured, and whether the one bears out the other."""

    claim: str
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


def demo(name: str, topology: Path, out: Path) -> bool:
    """Bring lab ``name`` up and prove ``topology`` in it; return whether every proof holds.

    Rendered files and the probe's report are left in ``out``. The lab stays up.
    """
    from ipsecctl.cli._load import load_topology

    shell = _Shell()
    file = str(topology)
    report = out / "probe.json"
    out.mkdir(parents=True, exist_ok=True)
    shell.run("lab", "up", name)
    shell.run("validate", file)
    shell.run("render", file, "--out", str(out / "files"))
    shell.run("plan", file)
    shell.run("apply", file, "--yes")
    again = shell.read("apply", file, "--json")
    shell.run("status", file, statuses=(0, 1, 3))
    status = shell.read("status", file, "--json")
    shell.run("probe", "tunnel", file, "--all", "--report", str(report), statuses=(0, 1, 3))
    probe = json.loads(report.read_text())
    rows = [*proofs_of_apply(again), *proofs_of_status(status), *proofs_of_probe(probe)]
    rows += _leak_without_charon(shell, load_topology(topology, quiet=True))
    _print_table(rows, time.monotonic() - shell.began)
    return all(row.holds for row in rows)


def proofs_of_apply(again: dict[str, Any]) -> Iterator[Proof]:
    """A second apply finds nothing to do."""
    changes = sum(gateway["changes"] for gateway in again["gateways"])
    yield Proof("a second apply changes nothing", f"{changes} changes", changes == 0)


def proofs_of_status(status: dict[str, Any]) -> Iterator[Proof]:
    """Every tunnel is INSTALLED at both ends, with SPIs that match."""
    up = [tunnel["name"] for tunnel in status["tunnels"] if tunnel["verdict"] == "up"]
    total = len(status["tunnels"])
    yield Proof(
        "tunnels up at both ends, SPIs matched crosswise", f"{len(up)} of {total}", 0 < total == len(up)
    )


def proofs_of_probe(probe: dict[str, Any]) -> Iterator[Proof]:
    """One row for each tunnel and kind of check; the figures of its directions and flows side by side."""
    for tunnel in probe["tunnels"]:
        if not tunnel["checks"]:
            yield Proof(f"{tunnel['name']}: probed", "no check ran", False)
        kinds: dict[str, list[dict[str, Any]]] = {}
        for check in tunnel["checks"]:
            kinds.setdefault(check["claim"], []).append(check)
        for claim, checks in kinds.items():
            yield Proof(
                f"{tunnel['name']}: {claim}",
                _figures(checks),
                all(check["outcome"] == "holds" for check in checks),
            )


def _figures(checks: list[dict[str, Any]]) -> str:
    """Return what was measured, each figure once, and of what did not hold the evidence."""
    figures = dict.fromkeys(
        str(check["measured"])
        if check["outcome"] == "holds"
        else f"{check['direction']}: {check['evidence']}"
        for check in checks
    )
    return "; ".join(figures)


def _leak_without_charon(shell: _Shell, topology: Topology) -> Iterator[Proof]:
    """charon dies at the near end of the first tunnel while marked traffic goes on both ways."""
    from ipsecctl.cli._scene import lab_of, scene_of
    from ipsecctl.probe import Outcome, watch_while

    lab = lab_of(topology, None)
    tunnel = topology.tunnels[0]
    victim = tunnel.left.gateway.name

    def outage() -> None:
        shell.run("lab", "exec", lab.name, victim, "--", *_CHARON, "kill")
        shell.run("status", topology.file, statuses=(0, 1, 3))
        time.sleep(_OUTAGE_S)
        shell.run("lab", "exec", lab.name, victim, "--", *_CHARON, "start")

    report = watch_while(tunnel, scene_of(lab), outage)
    yield Proof(
        f"{tunnel.name}: nothing in clear while charon is dead on {victim}",
        f"{report.leaked} in clear of {report.sent} sent, {report.wan_packets} WAN packets looked at",
        report.outcome is Outcome.HOLDS,
    )


def _print_table(rows: list[Proof], seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="What was proven", title_justify="left", show_lines=False)
    table.add_column("claim")
    table.add_column("measured")
    table.add_column("")
    for row in rows:
        table.add_row(row.claim, row.measured, "[green]holds[/]" if row.holds else "[red]FAILS[/]")
    print()
    Console().print(table)
    held = sum(row.holds for row in rows)
    print(f"{held} of {len(rows)} hold, {seconds:.0f} s in all.")
