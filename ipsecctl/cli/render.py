"""``ipsecctl render``: write the files of each gateway."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipsecctl.cli._app import command_app

if TYPE_CHECKING:
    from ipsecctl.desired import GatewayState
    from ipsecctl.render import RenderedFile
    from ipsecctl.secrets import Secret
    from ipsecctl.topology import SecretRef, Topology

__all__ = ["app"]

app = command_app()

_MANY_GATEWAYS = 100
_SCHEMA = "ipsecctl/render/1"


class _DataPathChoice(StrEnum):
    KERNEL = "kernel"
    LIBIPSEC = "libipsec"


@app.command()
def render(
    file: Annotated[Path, typer.Argument(help="Topology file.", metavar="FILE")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Directory to write; replaced as a whole.", metavar="DIR")
    ],
    gateway: Annotated[
        list[str] | None,
        typer.Option("--gateway", "-g", help="Only this gateway (may be repeated).", metavar="NAME"),
    ] = None,
    datapath: Annotated[
        _DataPathChoice,
        typer.Option(help="What 'datapath: auto' means: ESP by the kernel, or by charon itself."),
    ] = _DataPathChoice.KERNEL,
    json: Annotated[bool, typer.Option("--json", help="List what was written as JSON.")] = False,
) -> None:
    """Write the files of each managed gateway, as they will lie on it, to DIR/GATEWAY/.

    Files with secrets are readable by their owner only. DIR is replaced in one step once everything is
    written; a DIR with files that ipsecctl did not write is refused. The same topology gives the same bytes.
    No gateway is asked what it has: 'mode: auto' is 'policy' here, and nothing is left out for an old charon.

    \b
    Examples:
      ipsecctl render clinics.yaml --out out
      ipsecctl render clinics.yaml --out out --gateway dc --datapath libipsec
    """
    from ipsecctl.cli._load import base_dir, errors_as_json, load_topology
    from ipsecctl.cli._tree import Tree
    from ipsecctl.cli._view import print_json
    from ipsecctl.desired import Means, compile_topology
    from ipsecctl.render import render_files
    from ipsecctl.topology import DataPath

    topology = load_topology(file, json=json)
    means = {known.name: Means(DataPath(datapath.value)) for known in topology.gateways()}
    states = _chosen(compile_topology(topology, means), gateway or [], topology)
    _refuse_interfaces_without_kernel(states)
    written: dict[str, tuple[RenderedFile, ...]] = {}
    with errors_as_json(file, wanted=json):
        secrets, certificates = _credentials(states, base_dir(topology))
        with Tree.open(out, keep_others=bool(gateway)) as tree:
            for state in _with_progress(states):
                written[state.name] = render_files(state, secrets, certificates)
                tree.add(state.name, written[state.name])
    if json:
        print_json(_document(out, states, written))
    else:
        for state in states:
            print(_line(out, state, written[state.name]))


def _refuse_interfaces_without_kernel(states: Iterable[GatewayState]) -> None:
    """Refuse 'mode: route' where ESP was said to be charon's: that is wrong usage (status 2)."""
    from ipsecctl.topology import DataPath

    for state in states:
        if state.interfaces and state.data_path is DataPath.LIBIPSEC:
            raise typer.BadParameter(
                f"gateway '{state.name}' has tunnels in mode 'route', which only the kernel's ESP can carry",
                param_hint="--datapath",
            )


def _chosen(
    states: tuple[GatewayState, ...], names: list[str], topology: Topology
) -> tuple[GatewayState, ...]:
    """Return the states of the named gateways, or all; a wrong name is wrong usage (status 2)."""
    managed = [state.name for state in states]
    for name in names:
        if name in managed:
            continue
        if any(gateway.name == name for gateway in topology.gateways()):
            raise typer.BadParameter(f"gateway '{name}' is not managed: there is nothing to write for it")
        near = difflib.get_close_matches(name, managed, n=1)
        meant = f" Did you mean '{near[0]}'?" if near else ""
        raise typer.BadParameter(f"there is no gateway '{name}'.{meant}")
    return tuple(state for state in states if not names or state.name in names)


def _credentials(
    states: Iterable[GatewayState], base: Path
) -> tuple[Mapping[SecretRef, Secret], Mapping[str, bytes]]:
    """Read every secret and certificate that the states refer to, each once."""
    from ipsecctl.secrets import read_all, read_certificate

    states = tuple(states)
    references = {key.secret for state in states for key in state.shared_keys}
    references |= {key.secret for state in states for key in state.private_keys}
    sources = {certificate.source for state in states for certificate in state.certificates}
    return (
        read_all(references, base),
        {source: read_certificate(source, base) for source in sorted(sources)},
    )


def _with_progress(states: tuple[GatewayState, ...]) -> Iterable[GatewayState]:
    """Yield the states; on a terminal, and when there are many, count them."""
    counting = sys.stderr.isatty() and len(states) >= _MANY_GATEWAYS
    for done, state in enumerate(states, 1):
        yield state
        if counting and (done % _MANY_GATEWAYS == 0 or done == len(states)):
            end = "\n" if done == len(states) else ""
            print(f"\r{done} of {len(states)} gateways", end=end, file=sys.stderr, flush=True)


def _line(out: Path, state: GatewayState, files: tuple[RenderedFile, ...]) -> str:
    tunnels = len(state.connections)
    return (
        f"{out / state.name}: {len(files)} files, {tunnels} tunnel{'' if tunnels == 1 else 's'}, "
        f"data path {state.data_path}"
    )


def _document(
    out: Path, states: Iterable[GatewayState], written: Mapping[str, tuple[RenderedFile, ...]]
) -> dict[str, object]:
    return {
        "schema": _SCHEMA,
        "out": str(out),
        "gateways": [
            {
                "name": state.name,
                "data_path": str(state.data_path),
                "files": [
                    {"path": file.path, "mode": f"{file.mode:04o}", "bytes": len(file.content)}
                    for file in written[state.name]
                ],
            }
            for state in states
        ],
    }
