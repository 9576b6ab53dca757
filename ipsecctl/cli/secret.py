"""``ipsecctl secret``: make strong pre-shared keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipsecctl.cli._app import command_app
from ipsecctl.cli._load import base_dir, check_file, errors_as_json
from ipsecctl.cli._view import print_diagnostics, print_json, say
from ipsecctl.errors import Severity, TopologyRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipsecctl.topology import Topology
    from ipsecctl.topology.model import Path as DocumentPath

__all__ = ["app"]

app = command_app(
    no_args_is_help=True,
)


@app.callback()
def group() -> None:
    """Make strong pre-shared keys.

    \b
    Examples:
      ipsecctl secret generate
      ipsecctl secret generate topologies/clinic-dc.yaml
    """


@app.command()
def generate(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A topology: make the PSK and PPK files that it misses."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make pre-shared keys of 256 random bits.

    Without FILE one is printed. With FILE, every 'file:' PSK and PPK that the topology refers to and that is
    not there is written, readable by you alone; none is shown, and none that is there is overwritten.
    Exit status: 1 also where something else stands in the place of a PSK (a directory, a pipe, a link that
    leads nowhere), or a PSK that is there cannot be read.

    \b
    Examples:
      ipsecctl secret generate
      ipsecctl secret generate topologies/clinic-dc.yaml
    """
    from ipsecctl.secrets import generate_psk, unusable_psks, write_missing

    if file is None:
        psk = generate_psk()
        if as_json:
            print_json({"schema": "ipsecctl/secret/1", "psk": psk})
        else:
            typer.echo(psk)
        return
    with errors_as_json(file, wanted=as_json):
        topology, locate = _topology(file)
        written = [str(path) for path in write_missing(topology, base_dir(topology))]
    elsewhere = _not_in_files(topology)
    unusable = unusable_psks(topology, base_dir(topology), locate)
    if as_json:
        document = {"schema": "ipsecctl/secrets-written/1", "written": written, "not_in_files": elsewhere}
        print_json({**document, "diagnostics": [finding.as_json() for finding in unusable]})
    else:
        for path in written:
            typer.echo(path)
        if written or not unusable:
            say(_said(len(written)))
        if elsewhere:
            say(f"not in files, so not made here: {', '.join(elsewhere)}")
    if unusable:
        print_diagnostics(unusable)
        raise typer.Exit(1)


def _topology(file: Path) -> tuple[Topology, Callable[[DocumentPath], tuple[int, int]]]:
    """Read a topology, and where what stands in it, without looking at its secrets: some are to be made."""
    loaded, diagnostics = check_file(file, secrets=False)
    if loaded.topology is None:
        raise TopologyRefused(diagnostics)
    print_diagnostics([finding for finding in diagnostics if finding.severity is Severity.WARNING])
    return loaded.topology, loaded.source.locate


def _not_in_files(topology: Topology) -> list[str]:
    """Return the PSK references that are no files, sorted."""
    ends = (end for tunnel in topology.tunnels for end in (tunnel.left, tunnel.right))
    psks = {end.credential.psk for end in ends if end.credential.psk is not None}
    psks |= {tunnel.ppk.secret for tunnel in topology.tunnels if tunnel.ppk is not None}
    return sorted(str(psk) for psk in psks if psk.kind.value != "file")


def _said(written: int) -> str:
    if not written:
        return "no PSK file is missing"
    return f"{written} PSK{'s' if written > 1 else ''} written, readable by you alone"
