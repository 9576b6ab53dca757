"""``ipsecctl plan``: show what would change on each gateway."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ipsecctl.cli._app import command_app

__all__ = ["app"]

app = command_app()


@app.command()
def plan(
    file: Annotated[Path, typer.Argument(help="Topology file.", metavar="FILE")],
    lab: Annotated[
        str | None, typer.Option(help="All gateways are the containers of this lab.", metavar="NAME")
    ] = None,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit with 2 when there are changes.")
    ] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="This topology replaces another one on its gateways.")
    ] = False,
    wide: Annotated[
        bool, typer.Option("--wide", help="Show all fields of what is created or removed.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Show what would change on each gateway, why, and which tunnels that disturbs.

    Every gateway is looked at (charon, files, firewall, routes); nothing is changed. Exit status: 0 no
    change, or changes (2 with --detailed-exitcode), 1 something of another's stands against it, 3 a gateway
    could not be looked at (also with --detailed-exitcode: what it would need is not known).

    \b
    Examples:
      ipsecctl plan clinics.yaml
      ipsecctl plan topologies/clinic-dc.yaml --lab clinic-dc --json
      ipsecctl plan clinics.yaml --detailed-exitcode || echo "there is something to do, or to look into"
    """
    from ipsecctl.cli._interrupt import run
    from ipsecctl.cli._load import base_dir, errors_as_json, lab_called, load_topology
    from ipsecctl.cli._plan import print_plan
    from ipsecctl.cli._view import print_json
    from ipsecctl.deploy.prepare import prepare
    from ipsecctl.errors import CannotTell
    from ipsecctl.plan import plan_json

    topology = load_topology(file, json=json)
    with errors_as_json(file, wanted=json):
        work = prepare(topology, base_dir(topology), lab=lab_called(lab), take_over=take_over)
        prepared = run(work, lambda: "Interrupted while the gateways were looked at; plan changes nothing.")
    if json:
        print_json(plan_json(prepared.plans, {n: e.summary for n, e in prepared.failures.items()}))
    else:
        print_plan(prepared.plans, prepared.failures, sys.stdout, wide=wide)
    if any(plan.conflicts for plan in prepared.plans):
        raise typer.Exit(1)
    if prepared.failures:
        raise typer.Exit(CannotTell.exit_status)  # whatever kept us from looking: the answer is not known
    if detailed_exitcode and any(plan.changes for plan in prepared.plans):
        raise typer.Exit(2)
