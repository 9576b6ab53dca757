"""``ipsecctl probe``: measure on real packets what a tunnel claims."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from ipsecctl.probe import Check, TunnelReport
    from ipsecctl.topology import Topology, Tunnel

__all__ = ["app"]

_CONTEXT = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings=_CONTEXT,
    help="""Measure on real packets what a tunnel claims.

    \b
    ipsecctl probe tunnel clinic-dc.yaml clinics-clinic-a
    ipsecctl probe tunnel clinic-dc.yaml --all
    """,
)


@app.callback()
def probe() -> None:
    """Make ``probe`` a group also while it has a single command."""


@app.command("tunnel", context_settings=_CONTEXT)
def probe_tunnel(
    file: Annotated[Path, typer.Argument(help="Topology file.", metavar="FILE")],
    tunnel: Annotated[str | None, typer.Argument(help="The tunnel to probe.", metavar="TUNNEL")] = None,
    every: Annotated[bool, typer.Option("--all", help="Probe every tunnel, all at once.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    lab: Annotated[
        str | None, typer.Option(help="The lab; without it the one that the topology names.", metavar="NAME")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write the JSON to this file as well.", metavar="FILE")
    ] = None,
) -> None:
    """Send marked traffic through a tunnel of a lab, capture it on its way, and compare with what should be.

    For each direction of each flow, IPv4 and IPv6: the marked packets arrive; none of them is on the WAN in
    clear; ESP is between the right peers under SPIs that charon reports; it is protocol 50, or UDP 4500
    behind NAT; the largest packet that passes with DF is the one computed, and one byte more is answered with
    "fragmentation needed"; the MSS that arrives in SYN and SYN-ACK is the one computed.

    Each check holds, fails (with what was seen) or could not run (with the reason). Exit status 0 when all
    hold, 1 when one fails, 3 when none fails but one could not run.

    \b
    Examples:
      ipsecctl probe tunnel clinic-dc.yaml clinics-clinic-a
      ipsecctl probe tunnel clinic-dc.yaml --all --json
    """
    import asyncio
    import time

    from ipsecctl.cli._load import load_topology
    from ipsecctl.cli._scene import lab_of, scene_of
    from ipsecctl.cli._view import print_json, say
    from ipsecctl.errors import CannotTell
    from ipsecctl.gateway import reach
    from ipsecctl.lab import complete, containers
    from ipsecctl.probe import exit_status, probe_tunnels, report_json

    if every == (tunnel is not None):
        raise typer.BadParameter("name one tunnel, or say --all")
    if report is not None and not report.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no directory {report.parent}", param_hint="--report")
    topology = load_topology(file)
    tunnels = topology.tunnels if every else (_named(topology, tunnel or ""),)
    running = lab_of(topology, lab)
    if not complete(containers(running.name)):
        raise CannotTell(f"lab {running.name} is not up", f"Bring it up: ipsecctl lab up {running.name}")
    handles = {g.name: reach(g, topology.name, running.name) for g in topology.gateways() if g.managed}
    began = time.monotonic()
    try:
        reports = asyncio.run(probe_tunnels(topology, tunnels, scene_of(running), handles))
    except KeyboardInterrupt:
        say("Interrupted; every capture has ended.")
        raise typer.Exit(130) from None
    document = report_json(reports)
    if report is not None:
        report.write_text(jsonlib.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if json:
        print_json(document)
    else:
        _print(reports, time.monotonic() - began)
    raise typer.Exit(exit_status(reports))


def _named(topology: Topology, name: str) -> Tunnel:
    """Return the tunnel called ``name``. Exits with status 2 when there is none."""
    import difflib

    for tunnel in topology.tunnels:
        if tunnel.name == name:
            return tunnel
    names = [tunnel.name for tunnel in topology.tunnels]
    near = difflib.get_close_matches(name, names, n=1)
    known = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(names)}."
    raise typer.BadParameter(f"there is no tunnel '{name}' in {topology.file}. {known}")


def _print(reports: Sequence[TunnelReport], seconds: float) -> None:
    """Print a table for each tunnel and what it comes to."""
    import shutil
    import sys

    from rich.console import Console

    from ipsecctl.cli._view import wants_colour
    from ipsecctl.probe import Outcome

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 140
    colour = wants_colour(sys.stdout)
    console = Console(width=max(width, 80), no_color=not colour, highlight=False, force_terminal=colour)
    for report in reports:
        _print_table(console, report)
    checks = [check for report in reports for check in report.checks]
    counts = {outcome: sum(check.outcome is outcome for check in checks) for outcome in Outcome}
    parts = [f"{number} {_COUNTED[outcome]}" for outcome, number in counts.items() if number]
    console.print(f"{len(checks)} checks in {seconds:.1f} s: {', '.join(parts) or 'nothing to check'}.")


_COUNTED = {"holds": "hold", "fails": "FAIL", "could not run": "could not run"}
_STYLES = {"holds": "green", "fails": "bold red", "could not run": "yellow"}


def _print_table(console: Console, report: TunnelReport) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console.print(Text.assemble(f"{report.name}: ", (report.outcome.value, _STYLES[report.outcome.value])))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in ("check", "direction", "outcome", "expected", "measured"):
        table.add_column(column, no_wrap=column in ("check", "outcome"), overflow="fold")
    before = ""
    for check, direction, alike in _rows(report):
        table.add_row(
            check.check if check.check != before else "",
            direction,
            Text(check.outcome.value, _STYLES[check.outcome.value]),
            _figure(check.expected),
            Text(_measured(check) + (f" (and {alike - 1} more alike)" if alike > 1 else "")),
        )
        before = check.check
    console.print(table)
    for item in report.not_applicable:
        where = f"{item.flow}, {item.direction} IPv{item.family}"
        console.print(f"  {item.check} does not apply to {where}: {item.why}")
    console.print()


def _rows(report: TunnelReport) -> Iterator[tuple[Check, str, int]]:
    """Yield (check, direction, number of checks that it stands for), those of one kind together.

    Checks that hold alike, in one direction and family, are one row; what does not hold has rows of its own,
    with hosts.
    """
    from ipsecctl.probe import Outcome

    groups: dict[tuple[object, ...], list[Check]] = {}
    for check in report.checks:
        figures = (check.check, check.direction, check.family, check.expected, check.measured)
        alike = figures if check.outcome is Outcome.HOLDS else (id(check),)
        groups.setdefault(alike, []).append(check)
    for found in sorted(groups.values(), key=lambda checks: _order(checks[0].check)):
        first = found[0]
        alone = first.outcome is not Outcome.HOLDS and first.source
        direction = f"{first.source} -> {first.destination}" if alone else first.direction
        yield first, f"{direction} IPv{first.family}", len(found)


def _order(check: str) -> int:
    from ipsecctl.probe.checks import CHECKS

    return list(CHECKS).index(check)


def _figure(value: int | str | None) -> str:
    return "-" if value is None else str(value)


def _measured(check: Check) -> str:
    """Return the evidence, behind the figure where that is not as expected and not in it already."""
    figure = _figure(check.measured)
    told = check.measured in (None, check.expected) or figure in check.evidence
    return check.evidence if told else f"{figure}: {check.evidence}"
