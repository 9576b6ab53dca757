"""``ipsecctl plan``: show what would change on each gateway."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ipsecctl.cli._app import command_app
from ipsecctl.cli._fleet import BatchOption, CanaryOption, LimitOption, batch_lines, batches_json, fleet_of
from ipsecctl.cli._safety import AllowOption

__all__ = ["app"]

app = command_app()


@app.command()
def plan(
    ctx: typer.Context,
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
    out: Annotated[
        Path | None, typer.Option(help="Save the plan, for 'ipsecctl apply PLAN'.", metavar="PLAN")
    ] = None,
    allow: AllowOption = None,
    limit: LimitOption = None,
    canary: CanaryOption = None,
    batch: BatchOption = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="Show all fields of what is created or removed.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Show what would change on each gateway, why, and which tunnels that disturbs.

    Every gateway is looked at (charon, files, firewall, routes); nothing is changed. Changes that mend drift
    (what is no longer as it was applied) are told apart from those that the topology wants.

    A plan that removes or disturbs more than 10 % of the tunnels that are there (IPSECCTL_SAFETY_LIMIT, as
    20% or 5) and more than one, or removes the last tunnel of a site, is shown with the --allow that 'apply'
    then asks for. With --out the plan is saved: 'ipsecctl apply PLAN' does just that, or nothing.
    --canary and --batch show in which order 'apply' with the same options would go through the gateways.

    Exit status: 0 no
    change, or changes (2 with --detailed-exitcode), 1 something of another's stands against it, 3 a gateway
    could not be looked at (also with --detailed-exitcode: what it would need is not known).

    \b
    Examples:
      ipsecctl plan clinics.yaml
      ipsecctl plan topologies/clinic-dc.yaml --lab clinic-dc --json
      ipsecctl plan clinics.yaml --out monday.plan && ipsecctl apply monday.plan
      ipsecctl plan clinics.yaml --limit clinic-a
      ipsecctl plan clinics.yaml --detailed-exitcode || echo "there is something to do, or to look into"
    """
    from ipsecctl.cli._interrupt import run
    from ipsecctl.cli._load import base_dir, errors_as_json, lab_called, load_with_text
    from ipsecctl.cli._plan import print_plan
    from ipsecctl.cli._safety import safety_of
    from ipsecctl.cli._saved import made_now, save
    from ipsecctl.cli._view import print_json, say
    from ipsecctl.deploy.fleet import batches_of
    from ipsecctl.deploy.prepare import prepare
    from ipsecctl.errors import CannotTell
    from ipsecctl.plan import plan_json

    if out is not None and str(file) == "-":
        ctx.fail("--out needs a topology in a file: 'apply' reads it again.")
    fleet = fleet_of(limit, canary, batch)
    topology, text = load_with_text(file, json=json)
    with errors_as_json(file, wanted=json):
        lab = lab_called(lab)
        base, safety = base_dir(topology), safety_of(allow)
        chosen = fleet.gateways(topology, tuple)
        rollout = fleet.rollout(topology, chosen)
        work = prepare(topology, base, lab=lab, take_over=take_over, safety=safety, limit=chosen)
        prepared = run(work, lambda: "Interrupted while the gateways were looked at; plan changes nothing.")
        whole = not prepared.failures and not any(plan.conflicts for plan in prepared.plans)
        if out is not None and whole:
            save(made_now(prepared, text, file, lab=lab, take_over=take_over, allow=allow, limit=limit), out)
    batches = batches_of(prepared, rollout) if rollout.gated else ()
    if json:
        failures = {name: error.summary for name, error in prepared.failures.items()}
        document = plan_json(prepared.shown, failures, (stop.as_json() for stop in prepared.stops))
        print_json(document | ({"batches": batches_json(batches)} if rollout.gated else {}))
    else:
        print_plan(prepared.shown, prepared.failures, sys.stdout, wide=wide, stops=prepared.stops)
        for line in batch_lines(batches):
            print(line)
    if out is not None:
        carry = f"Saved to {out}. To do just that: ipsecctl apply {out}"
        say(carry if whole else f"Not saved to {out}: it is not the whole plan, or something is in its way.")
    if any(plan.conflicts for plan in prepared.plans):
        raise typer.Exit(1)
    if prepared.failures:
        raise typer.Exit(CannotTell.exit_status)  # whatever kept us from looking: the answer is not known
    if detailed_exitcode and any(plan.changes for plan in prepared.plans):
        raise typer.Exit(2)
