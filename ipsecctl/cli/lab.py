"""``ipsecctl lab``: run a topology against real strongSwan in containers."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ipsecctl.cli._app import CONTEXT, command_app

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    from ipsecctl.lab import LabStatus, NodeStatus
    from ipsecctl.lab.docker import Container

__all__ = ["app"]

T = TypeVar("T")


def _names(incomplete: str) -> list[str]:
    """Complete the name of a lab (its path the shell completes by itself)."""
    from ipsecctl.lab.find import known

    return [name for name in known() if name.startswith(incomplete)]


_HELP = "A lab (see 'ipsecctl lab list'), or the path of one's folder."
_NAME = typer.Argument(metavar="NAME", help=_HELP, autocompletion=_names)
_CARRIERS = {"kernel": "the kernel", "libipsec": "charon itself (kernel-libipsec)"}
_JSON = typer.Option("--json", help="Print JSON.")

app = command_app(
    no_args_is_help=True,
    help="""Run a topology against real strongSwan in containers.

    \b
    Examples:
      ipsecctl lab up clinic-dc
      ipsecctl lab exec clinic-dc dc -- swanctl --list-sas
      ipsecctl lab down clinic-dc
    """,
)


class _Format(StrEnum):
    ASCII = "ascii"
    DOT = "dot"
    MERMAID = "mermaid"


@app.command("list")
def list_labs(json: Annotated[bool, _JSON] = False) -> None:
    """List the labs that there are, and which of them are up.

    Exit status 3 when Docker does not say which of them are up; they are listed all the same.

    \b
    Examples:
      ipsecctl lab list
      ipsecctl lab list --json
    """
    from ipsecctl import lab as service
    from ipsecctl.cli._view import print_json, say
    from ipsecctl.errors import CannotTell

    unknown: CannotTell | None = None
    states: dict[str, str] = {}
    try:
        states = {status.lab: _state(status) for status in _seen(service.look_all())}
    except CannotTell as error:
        say(f"Which labs are up is not known: {error.summary}.")
        unknown = error
    otherwise = "unknown" if unknown else "down"
    rows = [(name, states.get(name, otherwise), service.load(name).description) for name in service.known()]
    rows += [(name, state, "") for name, state in states.items() if name not in service.known()]
    if json:
        labs = [{"name": name, "state": state, "description": text} for name, state, text in rows]
        print_json({"schema": "ipsecctl/labs/1", "labs": labs})
    else:
        _print_table(("LAB", "STATE", "WHAT IT IS"), rows)
    if unknown:
        raise typer.Exit(unknown.exit_status)


@app.command()
def up(
    name: Annotated[str, _NAME],
    recreate: Annotated[bool, typer.Option("--recreate", help="Remove what is there of it first.")] = False,
) -> None:
    """Bring a lab up.

    When it fails or is interrupted nothing is left of it. Missing credentials of the topology are made. A lab
    that is up already, and well, stays as it is.

    \b
    Examples:
      ipsecctl lab up clinic-dc
      ipsecctl lab up clinic-dc --recreate
      ipsecctl lab up ./labs/my-lab
    """
    from ipsecctl.cli._interrupt import telling
    from ipsecctl.cli._view import say

    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        say(text)

    with telling(lambda: "Interrupted before anything of the lab was made."):
        from ipsecctl import lab as service

        lab = service.load(name)
        try:
            done = service.up(lab, recreate=recreate, say=tell)
        except SystemExit as stop:
            if not said:  # once something of it is there, that it is removed has been said
                say("Interrupted before anything of the lab was made.")
            raise typer.Exit(int(stop.code or 0)) from None
    if not done.created:
        say(f"Lab {lab.name} is up already.")
        return
    for path in done.made:
        say(f"made {path}")
    for line in _carriers(done.status):
        say(line)
    say(f"Lab {lab.name} is up: {len(lab.nodes)} nodes, {len(lab.links)} links, in {done.seconds:.1f} s.")


@app.command()
def down(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help=_HELP, autocompletion=_names)] = None,
    every: Annotated[bool, typer.Option("--all", help="Every lab that there is anything of.")] = False,
) -> None:
    """Remove everything of a lab, whatever state it is in.

    \b
    Examples:
      ipsecctl lab down clinic-dc
      ipsecctl lab down --all
    """
    from ipsecctl import lab as service
    from ipsecctl.cli._store import store_at
    from ipsecctl.cli._view import say
    from ipsecctl.lab.find import name_of
    from ipsecctl.store import forget

    if name is None and not every:
        raise typer.BadParameter("name a lab, or say --all", param_hint="NAME")
    if name is not None and every:
        raise typer.BadParameter(f"'{name}' and --all: say one of the two", param_hint="NAME")
    labs = [name_of(name)] if name else [status.lab for status in service.complete(service.look_all())]
    if not labs:
        say("No lab is up.")
    for lab in labs:
        removed = service.down(lab)
        forget(store_at(None, lab))
        if removed.containers or removed.networks:
            counts = f"{removed.containers} containers, {removed.networks} networks"
            say(f"Lab {lab} is down: removed {counts}, in {removed.seconds:.1f} s.")
        elif lab in service.known():
            say(f"Lab {lab} is not up.")
        else:
            say(f"There is nothing of a lab {lab} on this machine.")


@app.command("demo")
def run_demo(
    name: Annotated[str, _NAME] = "clinic-dc",
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where rendered files and the probe's report go.")
    ] = Path("out"),
) -> None:
    """Do the main job in a lab, from topology to proofs.

    It ends with a table of what was proven, each row with its figure. Every command is printed before its
    output. The lab stays up. Exit status 0 only when every row holds.

    \b
    Examples:
      ipsecctl lab demo
      ipsecctl lab demo mesh-dual-stack --out /tmp/demo
    """
    from ipsecctl.cli._demo import demo
    from ipsecctl.lab import load

    lab = load(name)
    if not demo(lab, out / lab.name):
        raise typer.Exit(1)


@app.command()
def status(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One lab; without it, all.", autocompletion=_names)
    ] = None,
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Show the nodes of a lab: role, addresses, charon, data path.

    Exit status 0 when all runs, 1 when the lab is not up or something of it does not run, 3 when Docker does
    not say.

    \b
    Examples:
      ipsecctl lab status
      ipsecctl lab status clinic-dc --json
    """
    from ipsecctl import lab as service
    from ipsecctl.cli._load import errors_as_json
    from ipsecctl.cli._view import print_json, say
    from ipsecctl.lab.find import name_of

    with errors_as_json(Path(name or "labs"), wanted=json):
        labs = _seen(service.look_all()) if name is None else (_seen(service.look(name_of(name))),)
    if json:
        print_json({"schema": "ipsecctl/lab-status/1", "labs": [_status_json(lab) for lab in labs]})
    else:
        for position, lab in enumerate(labs):
            if position:
                typer.echo()
            _print_status(lab)
        if not labs:
            say("No lab is up.")
    if not all(lab.healthy for lab in labs):
        raise typer.Exit(1)


@app.command(
    "exec", context_settings={**CONTEXT, "ignore_unknown_options": True, "allow_interspersed_args": False}
)
def execute(
    name: Annotated[str, _NAME],
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node of the lab.")],
    command: Annotated[list[str], typer.Argument(metavar="CMD", help="What to run in it, after --.")],
) -> None:
    """Run a command in a node of a lab.

    It has this terminal and its input, and its exit status becomes ours.

    \b
    Examples:
      ipsecctl lab exec clinic-dc dc -- swanctl --list-sas
      ipsecctl lab exec clinic-dc internet -- tcpdump -ni to-dc
    """
    import os
    import sys

    from ipsecctl.lab.find import name_of

    # With options of the command left alone, click leaves the "--" before it in place as well.
    command = command[1:] if command[0] == "--" else command
    if not command:
        raise typer.BadParameter("what is to be run in the node?", param_hint="CMD")
    container = _running_container(name_of(name), node)
    terminal = ["-t"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    os.execvp("docker", ["docker", "exec", "-i", *terminal, container, *command])  # noqa: S606


@app.command()
def reboot(
    name: Annotated[str, _NAME],
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node of the lab.")],
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Cut the power of a node of a lab, and start it again.

    Its processes, interfaces, routes, firewall and SAs are gone at once, and nobody is told; its files stay.
    It begins with its links down, and comes back by what is on it. The other nodes are left as they are. Ends
    when the node has started: its tunnels may need longer. A node that was stopped is started.

    \b
    Examples:
      ipsecctl lab reboot clinic-dc clinic-a
      ipsecctl lab reboot clinic-dc dc --json
    """
    from ipsecctl import lab as service
    from ipsecctl.cli._load import errors_as_json
    from ipsecctl.cli._scene import lab_that_is_up
    from ipsecctl.cli._view import print_json, say
    from ipsecctl.lab.find import name_of

    with errors_as_json(Path(name), wanted=json):
        _container_of(name_of(name), node)
        lab = lab_that_is_up(name_of(name)) or service.load(name)
        done = service.reboot(lab, node)
    if json:
        document = {"lab": lab.name, "node": _node_json(done.status), "seconds": round(done.seconds, 3)}
        print_json({"schema": "ipsecctl/lab-reboot/1", **document})
        return
    charon = "" if done.status.charon == "-" else f", charon: {done.status.charon}"
    say(f"Node {node} of lab {lab.name} has started again, in {done.seconds:.1f} s{charon}.")


@app.command()
def graph(
    name: Annotated[str, _NAME],
    form: Annotated[
        _Format, typer.Option("--format", help="For a terminal, Graphviz or Mermaid.")
    ] = _Format.ASCII,
) -> None:
    """Draw a lab: nodes, links, addresses, tunnels. It need not be up.

    \b
    Examples:
      ipsecctl lab graph clinic-dc
      ipsecctl lab graph clinic-dc --format dot | dot -Tsvg -o clinic-dc.svg
    """
    from ipsecctl.cli._scene import lab_that_is_up
    from ipsecctl.lab import GraphFormat, draw, known, load
    from ipsecctl.lab.find import is_path

    running = None if is_path(name) or name in known() else lab_that_is_up(name)
    typer.echo(draw(running or load(name), GraphFormat(form.value)), nl=False)


# ------------------------------------------------------------------------------------------------------ views


def _seen(looking: Coroutine[Any, Any, T]) -> T:
    """Return what a look at labs finds; raises ``CannotTell`` when Docker does not let us look."""
    from ipsecctl.errors import CannotTell, LabError
    from ipsecctl.lab import complete

    try:
        return complete(looking)
    except LabError as error:
        raise CannotTell(error.summary, error.hint) from error


def _running_container(lab: str, node: str) -> str:
    """Return the container of a node of a lab that is up; raises ``LabError``."""
    from ipsecctl.errors import LabError
    from ipsecctl.gateway.names import container_name

    if not _container_of(lab, node).running:
        raise LabError(
            f"node {node} of lab {lab} does not run", f"Start it: ipsecctl lab reboot {lab} {node}"
        )
    return container_name(lab, node)


def _container_of(lab: str, node: str) -> Container:
    """Return what there is of a node of a lab that is up, running or not; raises ``LabError``."""
    from difflib import get_close_matches

    from ipsecctl import lab as service
    from ipsecctl.errors import LabError
    from ipsecctl.resources import lab_place

    there = {container.node: container for container in service.complete(service.containers(lab))}
    if not there:
        raise LabError(f"lab {lab} is not up", f"Bring it up: ipsecctl lab up {lab_place(lab)}")
    if node not in there:
        near = get_close_matches(node, there, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Its nodes: {', '.join(there)}."
        raise LabError(f"lab {lab} has no node '{node}'", hint)
    return there[node]


def _state(lab: LabStatus) -> str:
    return "up" if lab.healthy else "unwell" if lab.nodes else "down"


def _status_json(lab: LabStatus) -> dict[str, Any]:
    return {
        "name": lab.lab,
        "state": _state(lab),
        "nodes": [_node_json(node) for node in lab.nodes],
    }


def _node_json(node: NodeStatus) -> dict[str, Any]:
    return {
        "name": node.name,
        "role": node.role,
        "state": node.state,
        "charon": node.charon,
        "data_path": node.data_path,
        "addresses": {interface: list(addresses) for interface, addresses in node.addresses},
    }


def _print_status(lab: LabStatus) -> None:
    from ipsecctl.cli._view import say
    from ipsecctl.resources import lab_place

    typer.echo(f"lab {lab.lab}: {_state(lab)}")
    if not lab.nodes:
        say(f"Bring it up: ipsecctl lab up {lab_place(lab.lab)}")
        return
    rows = []
    for node in lab.nodes:
        shown = "  ".join(f"{name} {', '.join(addresses)}" for name, addresses in node.addresses if addresses)
        rows.append((node.name, node.role, node.state, node.charon, node.data_path, shown))
    _print_table(("NODE", "ROLE", "STATE", "CHARON", "DATA PATH", "ADDRESSES"), rows)


def _carriers(lab: LabStatus) -> Iterator[str]:
    """Yield who carries ESP on which gateways, and where nobody does how that is mended."""
    paths: dict[str, list[str]] = {}
    for node in lab.nodes:
        if node.role == "gateway":
            paths.setdefault(node.data_path, []).append(node.name)
    for data_path, gateways in paths.items():
        names = ", ".join(gateways)
        if data_path == "none":
            yield f"warning: nothing carries ESP on {names}: it is left to the kernel, which has none here"
            yield "    No tunnel can come up there. With 'datapath: auto' in the topology charon carries ESP."
        else:
            yield f"{_CARRIERS.get(data_path, 'nobody knows who')} carries ESP on {names}"


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from ipsecctl.cli._view import folded, too_narrow

    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    room = too_narrow(sum(widths) + 2 * (len(widths) - 1))
    for row in (head, *rows):
        cells = "  ".join(f"{cell:<{width}}" for cell, width in zip(row[:-1], widths, strict=False))
        for line in folded(cells, row[-1], room):
            typer.echo(line)
