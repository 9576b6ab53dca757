"""``ipsecctl validate``: every finding about a topology, with its line and how to mend it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipsecctl.cli._app import command_app

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ipsecctl.errors import Severity

__all__ = ["app"]

app = command_app()


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The topology file; - is standard input.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the findings as ipsecctl/diagnostics/1.")
    ] = False,
    secrets: Annotated[
        bool, typer.Option("--secrets/--no-secrets", help="Look at PSKs, certificates and keys, too.")
    ] = True,
    resolve: Annotated[
        bool, typer.Option("--resolve", help="Ask Vault and run commands for the secrets that are there.")
    ] = False,
) -> None:
    """Check a topology: every finding with its line and how to mend it, the worst first.

    Exit status: 0 when there are no errors (warnings do not count), 1 otherwise.

    \b
    Examples:
      ipsecctl validate topologies/clinic-dc.yaml
      ipsecctl validate --resolve clinics.yaml
      ipsecctl validate --json --no-secrets clinics.yaml
    """
    from ipsecctl.cli._load import check_file, error_json
    from ipsecctl.cli._view import print_diagnostics, print_json, say
    from ipsecctl.errors import IpsecctlError, Severity, diagnostics_json

    try:
        loaded, diagnostics = check_file(file, secrets=secrets, resolve=resolve)
    except IpsecctlError as error:
        if not as_json:
            raise
        # Who reads JSON gets JSON, also about a file that cannot be read.
        print_json(error_json(error, file))
        raise typer.Exit(1) from error
    counts = {severity: sum(d.severity is severity for d in diagnostics) for severity in Severity}
    if as_json:
        print_json(diagnostics_json(diagnostics))
    else:
        print_diagnostics(diagnostics, sys.stdout)
        if counts[Severity.ERROR]:
            say(_counted(counts))
        elif loaded.topology is not None:
            topology = loaded.topology
            warnings = f" ({_counted(counts)})" if any(counts.values()) else ""
            sites, tunnels = _plural(len(topology.sites), "site"), _plural(len(topology.tunnels), "tunnel")
            print(f"ok: {sites}, {tunnels}{warnings}")
    if counts[Severity.ERROR]:
        raise typer.Exit(1)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _counted(counts: Mapping[Severity, int]) -> str:
    nouns = ("error", "warning", "remark")
    return ", ".join(_plural(n, noun) for n, noun in zip(counts.values(), nouns, strict=True) if n)
