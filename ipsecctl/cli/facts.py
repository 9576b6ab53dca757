"""``ipsecctl facts``: what a gateway is and can do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ipsecctl.cli._app import command_app
from ipsecctl.patience import PATIENCE

if TYPE_CHECKING:
    from ipsecctl.deploy.facts import GatewayFacts
    from ipsecctl.topology import Gateway, Topology

__all__ = ["app"]

app = command_app()


@app.command()
def facts(
    arguments: Annotated[
        list[str],
        typer.Argument(help="Gateway and topology file; with --all the file.", metavar="[GATEWAY] FILE"),
    ],
    everyone: Annotated[
        bool, typer.Option("--all", help="Every managed gateway of the topology, side by side.")
    ] = False,
    lab: Annotated[
        str | None, typer.Option(help="All gateways are the containers of this lab.", metavar="NAME")
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="How long to wait for a gateway.", metavar="SECONDS", min=0.1)
    ] = 30.0 * PATIENCE,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what a gateway is and can do: charon, kernel, data path, firewall, routes, clock.

    What the topology needs of it and it lacks comes first. Nothing is changed: SAs, an xfrm interface and
    nftables rules are tried in a network namespace that is gone afterwards. What could not be found out is
    called "not known", with the reason. Exit status: 0 it has what is needed, 1 something is lacking, 3 a
    gateway could not be asked.

    \b
    Examples:
      ipsecctl facts dc clinics.yaml
      ipsecctl facts dc topologies/clinic-dc.yaml --lab clinic-dc --json
      ipsecctl facts --all clinics.yaml
    """
    from ipsecctl.cli._facts import print_facts, print_side_by_side
    from ipsecctl.cli._interrupt import run
    from ipsecctl.cli._load import errors_as_json, lab_called, load_topology
    from ipsecctl.cli._view import print_json
    from ipsecctl.deploy.facts import gather_facts

    name, file = _split(arguments, everyone)
    topology = load_topology(file, quiet=True, json=json, secrets=False)
    with errors_as_json(file, wanted=json):
        gateways = _managed(topology) if name is None else (_find(topology, name),)
        lab = lab_called(lab)
    work = gather_facts(topology, gateways, lab=lab, timeout_s=timeout)
    gathered = run(work, lambda: "Interrupted while the gateways were asked; facts changes nothing.")
    if json:
        documents = [_document(one) for one in gathered]
        all_of_them = {"schema": "ipsecctl/facts-all/1", "topology": topology.name, "gateways": documents}
        print_json(all_of_them if name is None else documents[0])
    elif name is None:
        print_side_by_side(gathered)
    else:
        print_facts(gathered[0])
    raise typer.Exit(max((one.exit_status for one in gathered), default=0))


def _split(arguments: list[str], everyone: bool) -> tuple[str | None, Path]:
    """Return the gateway's name, ``None`` for all, and the file."""
    if everyone:
        if len(arguments) != 1:
            raise typer.BadParameter("with --all a topology file, and no gateway", param_hint="FILE")
        return None, Path(arguments[0])
    if len(arguments) != 2:
        hint = "a gateway and a topology file: ipsecctl facts GATEWAY FILE, or ipsecctl facts --all FILE"
        raise typer.BadParameter(f"needed are {hint}", param_hint="GATEWAY FILE")
    return arguments[0], Path(arguments[1])


def _managed(topology: Topology) -> tuple[Gateway, ...]:
    return tuple(gateway for gateway in topology.gateways() if gateway.managed)


def _find(topology: Topology, name: str) -> Gateway:
    """Return a managed gateway by its name; raises ``IpsecctlError`` with the nearest when there is none."""
    from difflib import get_close_matches

    from ipsecctl.errors import IpsecctlError

    gateways = {gateway.name: gateway for gateway in topology.gateways()}
    managed = [gateway.name for gateway in _managed(topology)]
    if name not in gateways:
        near = get_close_matches(name, managed, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(managed) or 'none'}."
        raise IpsecctlError(f"there is no gateway '{name}' in {topology.file}", hint)
    if name not in managed:
        raise IpsecctlError(
            f"gateway '{name}' is somebody else's (managed: false): it is not looked at",
            f"Managed are: {', '.join(managed) or 'none'}.",
        )
    return gateways[name]


def _document(one: GatewayFacts) -> dict[str, Any]:
    from ipsecctl.gateway.capability_document import facts_json

    if one.found is not None:
        return facts_json(one.found, one.lacking)
    error = {"summary": one.error.summary, "hint": one.error.hint} if one.error else {}
    return {"schema": "ipsecctl/facts/1", "gateway": one.name, "reached": False, "error": error}
