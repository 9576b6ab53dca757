"""Options of whoever applies, and what is said of an apply that its gateways would go back from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ipsecctl.errors import IpsecctlError

if TYPE_CHECKING:
    from ipsecctl.deploy.undo import Net, Waiting

__all__ = [
    "BreakLockOption",
    "ConfirmOption",
    "LabOption",
    "LockWaitOption",
    "MessageOption",
    "UndoOption",
    "WaitOption",
    "YesOption",
    "net_of",
    "seconds_of",
    "waiting_json",
    "waiting_lines",
]

LabOption = Annotated[
    str | None, typer.Option(help="All gateways are the containers of this lab.", metavar="NAME")
]
WaitOption = Annotated[
    float,
    typer.Option(
        help="How long to wait for each tunnel at most, from when it is called.", metavar="SECONDS", min=0
    ),
]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask; changes need it where nobody can be asked.")
]
MessageOption = Annotated[str, typer.Option("--message", "-m", help="Why; for the history.", metavar="TEXT")]
LockWaitOption = Annotated[
    float, typer.Option(help="How long to wait for another apply to end.", metavar="SECONDS", min=0)
]
BreakLockOption = Annotated[
    bool, typer.Option("--break-lock", help="Take the gateways from another apply, and stop that.")
]
ConfirmOption = Annotated[
    str | None,
    typer.Option(
        "--confirm",
        help="Go back unless 'ipsecctl confirm FILE' comes within this time: 20s, 5m, 1h.",
        metavar="TIME",
    ),
]
UndoOption = Annotated[
    bool,
    typer.Option(
        "--undo-on-failure", help="Go back at once when a gateway fails or a tunnel does not come up."
    ),
]

_TIME = re.compile(r"([0-9]{1,6})([smh]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_LONGEST_S = 24 * 3600


def seconds_of(said: str) -> int:
    """Return a time as ``20s``, ``5m``, ``1h`` in seconds. Raises ``typer.BadParameter`` for any other."""
    from ipsecctl.deploy.undo import LEAST_S

    found = _TIME.fullmatch(said.strip())
    if found is None:
        raise typer.BadParameter(f"{said!r} is not a time such as 20s, 5m, 1h", param_hint="--confirm")
    seconds = int(found[1]) * _UNITS[found[2]]
    if not LEAST_S <= seconds <= _LONGEST_S:
        raise typer.BadParameter(
            f"{said} is not between {LEAST_S}s and {_LONGEST_S // 3600}h", param_hint="--confirm"
        )
    return seconds


def net_of(confirm: str | None, undo_on_failure: bool) -> Net | None:
    """Return what the options say is to happen when an apply goes wrong."""
    if confirm is None and not undo_on_failure:
        return None
    from ipsecctl.deploy.undo import Net

    return Net(None if confirm is None else seconds_of(confirm), undo_on_failure)


def waiting_lines(waiting: Waiting, file: Path, lab: str | None) -> Iterator[str]:
    """Yield what is to be said at the end of an apply with a net."""
    for name, state in (waiting.undone or {}).items():
        if isinstance(state, IpsecctlError):
            yield f"{name}: could not be told to go back: {state.summary}; it does so by itself."
        else:
            yield f"{name}: has gone {state.said}."
    for name, error in (waiting.lost or {}).items():
        yield f"{name}: {error.summary}; it goes back by itself, unless it has."
    if waiting.gateways:
        until = datetime.now().astimezone() + timedelta(seconds=waiting.left_s)
        many = len(waiting.gateways) > 1
        yield (
            f"Not confirmed yet: until {until:%H:%M:%S} {'they wait' if many else 'it waits'} "
            f"({', '.join(waiting.gateways)}), then {'each goes' if many else 'it goes'} back by itself."
        )
        yield f"Keep it with: ipsecctl confirm {file}{f' --lab {lab}' if lab else ''}"


def waiting_json(waiting: Waiting) -> dict[str, Any]:
    """Return the same for JSON; ``until`` is in UTC, by the clock of this machine."""
    until = datetime.now(UTC) + timedelta(seconds=waiting.left_s)
    return {
        "gateways": list(waiting.gateways),
        "left_s": waiting.left_s,
        "until": until.strftime("%Y-%m-%dT%H:%M:%SZ") if waiting.gateways else None,
        "lost": {name: error.summary for name, error in (waiting.lost or {}).items()},
        "undone": {
            name: state.summary if isinstance(state, IpsecctlError) else state.said
            for name, state in (waiting.undone or {}).items()
        },
    }
