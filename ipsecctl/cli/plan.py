"""``ipsecctl plan``: show what would change on each gateway."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ipsecctl.cli._app import command_app
from ipsecctl.cli._fleet import BatchOption, CanaryOption, LimitOption, batch_lines, batches_json, fleet_of
from ipsecctl.cli._safety import AllowOption

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipsecctl.deploy.prepare import Prepared
    from ipsecctl.plan import Batch

__all__ = ["app"]

app = command_app()

_STOPPED = "Interrupted while the gateways were looked at; plan changes nothing."


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
    from ipsecctl.cli._files import read_bytes
    from ipsecctl.cli._interrupt import run
    from ipsecctl.cli._load import errors_as_json, lab_called
    from ipsecctl.cli._plan import print_plan
    from ipsecctl.cli._safety import safety_of
    from ipsecctl.cli._settled import Memory
    from ipsecctl.cli._view import print_diagnostics, print_json, say

    if out is not None and str(file) == "-":
        ctx.fail("--out needs a topology in a file: 'apply' reads it again.")
    fleet = fleet_of(limit, canary, batch)
    with errors_as_json(file, wanted=json):
        data, lab, safety = read_bytes(file), lab_called(lab), safety_of(allow)
    memory = None if out is not None or take_over or fleet.said else Memory(data, file, lab)
    if memory is not None and memory.shown(run, _STOPPED, json=json):
        return
    from ipsecctl.cli._load import base_dir, checked_with_warnings
    from ipsecctl.cli._saved import made_now, save
    from ipsecctl.deploy.fleet import batches_of
    from ipsecctl.deploy.prepare import prepare

    topology, warnings = checked_with_warnings(data, file, json=json)
    print_diagnostics(warnings, sys.stderr)
    text = data.decode()
    with errors_as_json(file, wanted=json):
        base = base_dir(topology)
        chosen = fleet.gateways(topology, tuple)
        rollout = fleet.rollout(topology, chosen)
        work = prepare(topology, base, lab=lab, take_over=take_over, safety=safety, limit=chosen)
        prepared = run(work, lambda: _STOPPED)
        if memory is not None:
            memory.keep(prepared, warnings)
        whole = not prepared.failures and not any(plan.conflicts for plan in prepared.plans)
        if out is not None and whole:
            save(made_now(prepared, text, file, lab=lab, take_over=take_over, allow=allow, limit=limit), out)
    batches = batches_of(prepared, rollout) if rollout.gated else ()
    if json:
        print_json(_document(prepared, batches if rollout.gated else None))
    else:
        print_plan(prepared.shown, prepared.failures, sys.stdout, wide=wide, stops=prepared.stops)
        for line in batch_lines(batches):
            print(line)
    if out is not None:
        carry = f"Saved to {out}. To do just that: ipsecctl apply {out}"
        say(carry if whole else f"Not saved to {out}: it is not the whole plan, or something is in its way.")
    raise typer.Exit(_status(prepared, detailed=detailed_exitcode))


def _document(prepared: Prepared, batches: Iterable[Batch] | None) -> dict[str, Any]:
    """Return the plans for JSON, with ``batches`` where there are any to tell of."""
    from ipsecctl.plan import plan_json

    failures = {name: error.summary for name, error in prepared.failures.items()}
    document = plan_json(prepared.shown, failures, (stop.as_json() for stop in prepared.stops))
    return document | ({} if batches is None else {"batches": batches_json(batches)})


def _status(prepared: Prepared, *, detailed: bool) -> int:
    from ipsecctl.errors import CannotTell

    if any(plan.conflicts for plan in prepared.plans):
        return 1
    if prepared.failures:
        return CannotTell.exit_status  # whatever kept us from looking: the answer is not known
    return 2 if detailed and any(plan.changes for plan in prepared.plans) else 0
