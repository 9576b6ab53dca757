"""A plan on the screen, shared by ``plan`` and ``apply``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, TYPE_CHECKING

from ipsecctl.cli._view import paint

if TYPE_CHECKING:
    from ipsecctl.errors import IpsecctlError
    from ipsecctl.plan import Change, GatewayPlan

__all__ = ["print_changes", "print_plan", "restart_notice"]

_SIGNS = {"create": ("+", "green"), "change": ("~", "yellow"), "remove": ("-", "red")}
_LONG = 100


def print_plan(
    plans: Iterable[GatewayPlan],
    failures: Mapping[str, IpsecctlError],
    stream: IO[str],
    *,
    wide: bool = False,
) -> None:
    """Print the changes of each gateway, what stands against them, and a line that sums up.

    ``wide`` shows all fields of what is created and removed too, not only those that change.
    """
    plans = tuple(plans)
    for plan in plans:
        if plan.changes or plan.conflicts or plan.restart_for or plan.notes:
            charon = f"charon {plan.version}" if not plan.charon_down else "the host alone: charon is down"
            print(f"{paint(plan.gateway, 'bold', stream)} ({charon})", file=stream)
        for change in plan.changes:
            _print_change(change, stream, wide)
        for conflict in plan.conflicts:
            print(f"  {paint('conflict', 'red', stream)}: {conflict.summary}", file=stream)
            print(f"      {conflict.hint}", file=stream)
        for note in plan.notes:
            print(f"  {paint('note', 'cyan', stream)}: {note.summary}", file=stream)
            print(f"      {note.hint}", file=stream)
        if plan.restart_for:
            text, hint = restart_notice(plan.gateway, plan.restart_for, plan.restart)
            print(f"  {paint('restart', 'yellow', stream)}: {text}", file=stream)
            print(f"      {hint}", file=stream)
    halves = {plan.gateway for plan in plans}
    for name, error in failures.items():
        what = "charon's part not planned" if name in halves else "not planned"
        print(f"{paint(what, 'red', stream)}: {error.summary}", file=stream)
        if error.hint:
            print(f"      {error.hint}", file=stream)
    print(_summary(plans, len(failures)), file=stream)


def print_changes(changes: Iterable[Change], stream: IO[str]) -> None:
    """Print changes under the names of their gateways."""
    gateway = ""
    for change in changes:
        if change.gateway != gateway:
            gateway = change.gateway
            print(paint(gateway, "bold", stream), file=stream)
        _print_change(change, stream, wide=False)


def restart_notice(gateway: str, options: Iterable[str], how: str) -> tuple[str, str]:
    """Return what must be said of options that charon does not take up while it runs, and what to do."""
    return (
        f"charon on {gateway} must be restarted for {', '.join(options)}",
        f"apply does not do that, as all tunnels of {gateway} go down: {how or 'restart charon there'}",
    )


def _print_change(change: Change, stream: IO[str], wide: bool) -> None:
    sign, colour = _SIGNS[change.kind]
    grade = f" [{change.disruption}]" if change.disruption else ""
    print(
        f"  {paint(sign, colour, stream)} {change.part} {change.name}{paint(grade, 'red', stream)}: "
        f"{'; '.join(change.reasons)}",
        file=stream,
    )
    before, after = dict(change.before), dict(change.after)
    if wide or (before and after):
        for name in sorted(before.keys() | after.keys()):
            print(f"      {name}: {_value(before.get(name))} -> {_value(after.get(name))}", file=stream)


def _value(value: str | None) -> str:
    if value is None:
        return "(not set)"
    return value if len(value) <= _LONG else f"{value[:_LONG]}..."


def _summary(plans: tuple[GatewayPlan, ...], failed: int) -> str:
    changes = [change for plan in plans for change in plan.changes]
    if not changes and not failed and not any(plan.conflicts for plan in plans):
        gateways = f"{len(plans)} gateway{'s are' if len(plans) != 1 else ' is'}"
        waiting = [plan.gateway for plan in plans if plan.restart_for]
        if waiting:
            return f"Nothing to apply: charon must be restarted on {', '.join(waiting)}."
        return f"Nothing to do: {gateways} as the topology says."
    counts = [(sum(c.kind == kind for c in changes), kind) for kind in _SIGNS]
    text = "Plan: " + ", ".join(f"{count} to {kind}" for count, kind in counts) + "."
    disturbed = {name: str(grade) for plan in plans for name, grade in sorted(plan.disturbed.items())}
    if disturbed:
        text += (
            " Disturbs " + ", ".join(f"{name} ({grade})" for name, grade in sorted(disturbed.items())) + "."
        )
    elif changes:
        text += " No running tunnel is disturbed."
    if failed:
        text += f" {failed} gateway{'s' if failed != 1 else ''} could not be planned."
    return text
