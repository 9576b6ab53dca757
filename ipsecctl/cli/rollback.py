"""``ipsecctl rollback``: apply an earlier revision again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipsecctl.cli._app import command_app
from ipsecctl.cli._safety import AllowOption
from ipsecctl.cli._store import StoreOption
from ipsecctl.cli._undo import (
    BreakLockOption,
    ConfirmOption,
    LabOption,
    LockWaitOption,
    MessageOption,
    UndoOption,
    WaitOption,
    YesOption,
    net_of,
)
from ipsecctl.errors import IpsecctlError
from ipsecctl.patience import PATIENCE

if TYPE_CHECKING:
    from ipsecctl.store import Revision, Store

__all__ = ["app"]

app = command_app()


@app.command()
def rollback(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="Topology file, as it was given to apply.", metavar="FILE")],
    number: Annotated[
        int | None,
        typer.Argument(
            help="A revision of 'ipsecctl history'. Default: the one before the last that was applied.",
            metavar="[REVISION]",
            min=1,
        ),
    ] = None,
    lab: LabOption = None,
    wait: WaitOption = 30.0 * PATIENCE,
    yes: YesOption = False,
    allow: AllowOption = None,
    confirm: ConfirmOption = None,
    undo_on_failure: UndoOption = False,
    message: MessageOption = "",
    lock_wait: LockWaitOption = 0.0,
    break_lock: BreakLockOption = False,
    store: StoreOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Apply an earlier revision again: plan, question and outcome are those of apply.

    The topology is the text that was applied then, and FILE stays as it is: put it right, too, or the next
    apply brings back what it says. Secrets and certificates are not in the history: those are taken that lie
    beside FILE now.

    Exit status: as of apply; 1 also when there is no such revision.

    \b
    Examples:
      ipsecctl rollback clinics.yaml
      ipsecctl rollback clinics.yaml 41 --confirm 5m
      ipsecctl history show 41 --text > clinics.yaml
    """
    from ipsecctl.cli._interrupt import one_loop, telling

    net = net_of(confirm, undo_on_failure)
    with telling(lambda: "Interrupted before anything was changed."), one_loop():
        from ipsecctl.cli._load import checked, errors_as_json, lab_called
        from ipsecctl.cli._store import open_store
        from ipsecctl.cli._view import say
        from ipsecctl.cli.apply import Work, show_outcome

        with errors_as_json(file, wanted=json):
            with open_store(store, lab_called(lab) or _lab_in(file)) as opened:
                revision = _revision(opened, file, number)
            say(f"Revision {revision.number}, applied {_when(revision)} by {revision.owner.person}:")
        # Paths in it are relative to the folder of the file, whatever the file says by now.
        topology = checked(revision.text.encode(), file, json=json)
        with errors_as_json(file, wanted=json):
            work = Work(
                topology,
                revision.text,
                file,
                lab,
                wait,
                yes,
                take_over=False,
                message=message,
                lock_wait_s=lock_wait,
                break_lock=break_lock,
                net=net,
                rollback_of=revision.number,
                allow=tuple(allow or ()),
            )
            applied = work.carry_out(ctx, store=store, json=json)
    show_outcome(applied, file, lab, json=json)


def _when(revision: Revision) -> str:
    from ipsecctl.cli._store import local_time

    return local_time(revision.began)


def _lab_in(file: Path) -> str | None:
    """Return the lab that a file's gateways are in, ``None`` also where the file cannot be read."""
    from ipsecctl.deploy.journal import lab_of
    from ipsecctl.topology import load_bytes

    try:
        known = load_bytes(file.read_bytes(), str(file)).known
    except OSError:
        return None
    return lab_of(known, None) if known is not None else None


def _revision(store: Store, file: Path, number: int | None) -> Revision:
    """Return the revision to go back to. Raises ``IpsecctlError`` where there is none."""
    of_file = [each for each in store.revisions() if each.file == os.path.abspath(file)]  # noqa: PTH100
    if number is not None:
        found = store.revision(number)
        if not any(each.number == number for each in of_file):
            raise IpsecctlError(
                f"revision {number} is of {found.file}, not of {file}",
                f"Roll that one back: ipsecctl rollback {found.file} {number}",
            )
        return found
    applied = [each for each in of_file if str(each.outcome) == "applied"]
    before = [each for each in applied[1:] if each.sha256 != applied[0].sha256]
    if not before:
        raise IpsecctlError(
            f"no earlier revision of {file} was applied that differs from the last one",
            "'ipsecctl history' lists all of them; any can be named: ipsecctl rollback FILE REVISION",
        )
    return store.revision(before[0].number)
