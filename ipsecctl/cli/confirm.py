"""``ipsecctl confirm``: keep what was applied with ``--confirm``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ipsecctl.cli._app import command_app
from ipsecctl.cli._store import StoreOption
from ipsecctl.cli._undo import LabOption
from ipsecctl.cli._view import paint, print_json, say
from ipsecctl.errors import IpsecctlError
from ipsecctl.patience import PATIENCE

if TYPE_CHECKING:
    from ipsecctl.deploy.undo import Confirmation
    from ipsecctl.topology import Topology

__all__ = ["app"]

app = command_app()


@app.command()
def confirm(
    file: Annotated[Path, typer.Argument(help="Topology file.", metavar="FILE")],
    lab: LabOption = None,
    partly: Annotated[
        bool, typer.Option("--partly", help="Confirm those that wait, though others have gone back.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(help="How long to wait for a gateway at most.", metavar="SECONDS", min=0.1)
    ] = 10.0 * PATIENCE,
    store: StoreOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Keep what was applied with 'apply --confirm': no gateway goes back any more.

    All gateways are asked first. When one of the same apply has gone back already, or cannot be reached,
    none is confirmed, so that they all go back: a tunnel with one end old and one end new does not work.

    Exit status: 0 all that waited are confirmed, or nothing waits; 1 not so.

    \b
    Examples:
      ipsecctl apply clinics.yaml --confirm 5m
      ipsecctl confirm clinics.yaml
      ipsecctl confirm clinics.yaml --json
    """
    from ipsecctl.cli._interrupt import one_loop, run, telling

    with telling(lambda: _INTERRUPTED), one_loop():
        from ipsecctl.cli._load import errors_as_json, lab_called, load_topology
        from ipsecctl.deploy.prepare import reach_all
        from ipsecctl.deploy.undo import confirm_all

        topology = load_topology(file, quiet=True, json=json, secrets=False)
        with errors_as_json(file, wanted=json):
            lab = lab_called(lab)
            handles, unreachable = reach_all(topology, lab)
            asking = confirm_all(handles, unreachable, partly=partly, timeout_s=timeout)
            done = run(asking, lambda: _INTERRUPTED)
            _record(done, topology, store, lab)
    if json:
        print_json(_document(done))
    else:
        _print(done)
    if not done.succeeded:
        raise typer.Exit(1)


_INTERRUPTED = "Interrupted: 'ipsecctl status' tells which gateways still wait."


def _record(done: Confirmation, topology: Topology, store: str | None, lab: str | None) -> None:
    """Write into the history what was confirmed and what is known to have gone back."""
    from ipsecctl.cli._store import open_store
    from ipsecctl.deploy.journal import lab_of
    from ipsecctl.errors import StoreUnusable
    from ipsecctl.whoami import user_at_host

    if not (done.tokens or done.back):
        return
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    try:
        with open_store(store, lab_of(topology, lab)) as opened:
            for token in done.tokens:
                partly = ", but not on all gateways" if done.against else ""
                opened.confirmation(token, f"confirmed by {user_at_host()} at {now}{partly}")
            for token in {*done.back} - {*done.tokens}:
                opened.confirmation(token, f"not confirmed: gone back, seen at {now}")
    except StoreUnusable as error:
        say(f"warning: the history does not tell of this: {error.summary}")


def _print(done: Confirmation) -> None:
    import sys

    for name in done.confirmed:
        print(f"{paint('confirmed', 'green', sys.stdout)}  {name}")
    for name, why in sorted(done.against.items()):
        print(f"{paint('not kept', 'red', sys.stdout)}   {name}: {why}")
    waiting = sorted(
        name
        for name, state in done.states.items()
        if not isinstance(state, IpsecctlError) and str(state.way) == "waiting"
    )
    if waiting and done.against:
        print(
            f"Nothing was confirmed: {', '.join(waiting)} would differ from what has gone back, or may. They "
            "go back by themselves, too. To keep them all the same: --partly"
        )
    elif not done.confirmed and not done.against:
        print("Nothing waits for confirmation.")


def _document(done: Confirmation) -> dict[str, Any]:
    return {
        "schema": "ipsecctl/confirm/1",
        "confirmed": list(done.confirmed),
        "not_confirmed": dict(sorted(done.against.items())),
        "gateways": [
            {
                "name": name,
                "state": "unknown" if isinstance(state, IpsecctlError) else str(state.way),
                "left_s": None if isinstance(state, IpsecctlError) or not state.left_s else state.left_s,
                "said": state.summary if isinstance(state, IpsecctlError) else state.said or None,
            }
            for name, state in sorted(done.states.items())
        ],
    }
