"""``ipsecctl diff``: what changed between two revisions."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Annotated

import typer

from ipsecctl.cli._app import command_app
from ipsecctl.cli._store import LabOption, StoreOption
from ipsecctl.cli._view import paint

if TYPE_CHECKING:
    from ipsecctl.desired import GatewayState
    from ipsecctl.store import Revision

__all__ = ["app"]

app = command_app()


@app.command()
def diff(
    before: Annotated[int, typer.Argument(help="Number of the earlier revision.", metavar="N", min=1)],
    after: Annotated[int, typer.Argument(help="Number of the later revision.", metavar="M", min=1)],
    store: StoreOption = None,
    lab: LabOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show what changed between two revisions: in the topology file, and in what each gateway must be.

    What each gateway must be is worked out anew from both files by this version of ipsecctl, without looking
    at gateways. Exit status: 1 when there is no such revision, 3 when the store, or one of the topologies,
    cannot be read.

    \b
    Examples:
      ipsecctl diff 41 42
      ipsecctl diff 41 42 --json
    """
    from ipsecctl.cli._load import lab_called
    from ipsecctl.cli._plan import print_changes
    from ipsecctl.cli._store import open_store
    from ipsecctl.cli._view import print_json
    from ipsecctl.plan import between

    with open_store(store, lab_called(lab)) as opened:
        old, new = opened.revision(before), opened.revision(after)
    lines = _text_diff(old, new)
    changes = between(_states(old), _states(new)) if old.sha256 != new.sha256 else ()
    if json:
        print_json(
            {
                "schema": "ipsecctl/diff/1",
                "store": str(opened.location),
                "before": old.as_json(),
                "after": new.as_json(),
                "text": "".join(lines),
                "changes": [change.as_json() for change in changes],
            }
        )
        return
    _print_diff(lines, sys.stdout)
    print_changes(changes, sys.stdout)
    if not lines:
        print(f"Revisions {before} and {after} have the same topology.")
    elif not changes:
        print("No gateway has to be other than it was.")


def _text_diff(old: Revision, new: Revision) -> list[str]:
    from difflib import unified_diff

    def name(revision: Revision) -> str:
        return f"revision {revision.number}: {revision.file}"

    def lines(text: str) -> list[str]:
        whole = text.splitlines(keepends=True)
        return [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in whole]

    return [*unified_diff(lines(old.text), lines(new.text), name(old), name(new))]


def _print_diff(lines: list[str], stream: IO[str]) -> None:
    colours = {"+++": "bold", "---": "bold", "@": "cyan", "+": "green", "-": "red"}
    for line in lines:
        colour = next((colours[start] for start in colours if line.startswith(start)), "")
        text = line.rstrip("\n")
        print(paint(text, colour, stream) if colour else text, file=stream)


def _states(revision: Revision) -> tuple[GatewayState, ...]:
    """Return what each gateway had to be by a revision's topology. Raises ``CannotTell``."""
    from ipsecctl.desired import compile_topology
    from ipsecctl.errors import CannotTell
    from ipsecctl.topology import load_text

    loaded = load_text(revision.text, f"revision {revision.number}")
    if loaded.topology is None:
        raise CannotTell(
            f"this version of ipsecctl refuses the topology of revision {revision.number}: "
            f"{loaded.diagnostics[0]}",
            f"'ipsecctl history show {revision.number} --text' prints it as it was.",
        )
    return compile_topology(loaded.topology)
