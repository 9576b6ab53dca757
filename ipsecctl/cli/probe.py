"""``ipsecctl probe``: measure on real packets what a tunnel claims."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipsecctl.cli._app import CONTEXT, command_app

if TYPE_CHECKING:
    from ipsecctl.lab import Lab
    from ipsecctl.topology import Topology, Tunnel

__all__ = ["app"]

app = command_app(
    no_args_is_help=True,
    help="""Measure on real packets what a tunnel claims.

    \b
    Examples:
      ipsecctl probe tunnel clinic-dc.yaml clinics-clinic-a
      ipsecctl probe tunnel clinic-dc.yaml --all
    """,
)


@app.callback()
def probe() -> None:
    """Make ``probe`` a group also while it has a single command."""


@app.command("tunnel", context_settings=CONTEXT)
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
      ipsecctl probe tunnel clinic-dc.yaml --all --lab my-lab --report probe.json
    """
    import time

    from ipsecctl.cli._interrupt import run, telling

    with telling(lambda: "Interrupted before the probe began."):
        from ipsecctl.cli._checks import print_reports
        from ipsecctl.cli._load import errors_as_json, load_topology
        from ipsecctl.cli._scene import lab_of, scene_of
        from ipsecctl.cli._view import print_json
        from ipsecctl.gateway import reach
        from ipsecctl.probe import exit_status, probe_tunnels, report_json

    if tunnel is None and not every:
        raise typer.BadParameter("name one tunnel, or say --all", param_hint="TUNNEL")
    if tunnel is not None and every:
        raise typer.BadParameter(f"'{tunnel}' and --all: say one of the two", param_hint="TUNNEL")
    if report is not None and not report.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no directory {report.parent}", param_hint="--report")
    if report is not None and report.is_dir():
        raise typer.BadParameter(f"{report} is a directory", param_hint="--report")
    topology = load_topology(file, json=json, secrets=False)
    tunnels = topology.tunnels if every else (_named(topology, tunnel or ""),)
    with errors_as_json(file, wanted=json):
        running = lab_of(topology, lab)
        _check_up(running, topology)
        handles = {g.name: reach(g, topology, running.name) for g in topology.gateways() if g.managed}
        began = time.monotonic()
        probing = probe_tunnels(topology, tunnels, scene_of(running), handles)
        names = tunnels[0].name if len(tunnels) == 1 else f"{len(tunnels)} tunnels"
        reports = run(probing, lambda: f"Interrupted while probing {names}: ending every capture.")
    document = report_json(reports)
    if report is not None:
        from ipsecctl.cli._files import write_text

        write_text(report, jsonlib.dumps(document, indent=2, ensure_ascii=False) + "\n", replace=True)
    if json:
        print_json(document)
    else:
        print_reports(reports, time.monotonic() - began)
    raise typer.Exit(exit_status(reports))


def _check_up(lab: Lab, topology: Topology) -> None:
    """Raise ``CannotTell`` when a lab is not up, or Docker does not say."""
    from ipsecctl.errors import CannotTell, LabError
    from ipsecctl.lab import complete, containers
    from ipsecctl.resources import lab_place

    try:
        there = complete(containers(lab.name))
    except LabError as error:
        raise CannotTell(error.summary, error.hint) from error
    if not there:
        folder = Path(lab.file).absolute().parent
        hint = f"Bring it up: ipsecctl lab up {lab_place(lab.name, near=topology.file)}"
        if lab.name != folder.name:  # the topology's lab, under a name that somebody gave it
            hint = "'ipsecctl lab status' shows those that are up."
        raise CannotTell(f"lab {lab.name} is not up", hint)


def _named(topology: Topology, name: str) -> Tunnel:
    """Return the tunnel called ``name``. Exits with status 2 when there is none."""
    import difflib

    for tunnel in topology.tunnels:
        if tunnel.name == name:
            return tunnel
    names = [tunnel.name for tunnel in topology.tunnels]
    near = difflib.get_close_matches(name, names, n=1)
    known = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(names)}."
    raise typer.BadParameter(f"there is no tunnel '{name}' in {topology.file}. {known}", param_hint="TUNNEL")
