"""A plan on the screen, shared by ``plan`` and ``apply``."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import IO, TYPE_CHECKING

from ipsecctl.cli._view import paint

if TYPE_CHECKING:
    from ipsecctl.errors import IpsecctlError
    from ipsecctl.plan import Change, Disruption, GatewayPlan, Stop

__all__ = ["held_hint", "print_changes", "print_plan", "restart_notice"]

_SIGNS = {"create": ("+", "green"), "change": ("~", "yellow"), "remove": ("-", "red")}
_CAUSES = {"drift": "drift", "cut off": "cut off", "not completed": "not completed"}
_GRADES = ("", "cyan", "red", "red")


def print_plan(
    plans: Iterable[GatewayPlan],
    failures: Mapping[str, IpsecctlError],
    stream: IO[str],
    *,
    wide: bool = False,
    stops: Iterable[Stop] = (),
) -> None:
    """Print the changes of each gateway, what stands against them, and what they come to.

    ``stops`` say why they are held back. ``wide`` shows all fields of what is created and removed too, not
    only those that change.
    """
    plans = tuple(plans)
    for plan in plans:
        if plan.changes or plan.conflicts or plan.restart_for or plan.notes:
            charon = f"charon {plan.version}" if not plan.charon_down else "the host alone: charon is down"
            print(f"{paint(plan.gateway, 'bold', stream)} ({charon})", file=stream)
        for change in plan.changes:
            _print_change(change, stream, wide)
        for conflict in plan.conflicts:
            _print_notice("conflict", "red", conflict.summary, conflict.hint, stream)
        for note in plan.notes:
            _print_notice("note", "cyan", note.summary, note.hint, stream)
        if plan.restart_for:
            text, hint = restart_notice(plan.gateway, plan.restart_for, plan.restart)
            _print_notice("restart", "yellow", text, hint, stream)
    halves = {plan.gateway for plan in plans}
    for name, error in failures.items():
        what = "charon's part not planned" if name in halves else "not planned"
        print(f"{paint(what, 'red', stream)}: {error.summary}", file=stream)
        if error.hint:
            print(f"      {error.hint}", file=stream)
    _print_summary(plans, len(failures), stream)
    for stop in stops:
        _print_notice("held back", "red", stop.summary, stop.hint, stream, indent=0)


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


def held_hint(tunnel: str) -> str:
    """Return how a tunnel is changed all the same that is held back."""
    return f"--allow {tunnel} tries it all the same."


def _print_notice(label: str, colour: str, text: str, hint: str, stream: IO[str], *, indent: int = 2) -> None:
    """Print something with a label before it, and below it what to do."""
    margin = " " * indent
    label, plain = f"{margin}{paint(label, colour, stream)}: ", f"{margin}{label}: "
    _print_wrapped(text, indent + 4, stream, first=plain, label=label)
    _print_wrapped(hint, indent + 4, stream)


def _print_change(change: Change, stream: IO[str], wide: bool) -> None:
    """Print a change: what, in tags its cause and grade, why; below it the fields, old value and new one.

    On a terminal what has no room in a line goes on below, indented; elsewhere it is one line, for grep.
    """
    sign, colour = _SIGNS[change.kind]
    tags = [(_CAUSES[change.cause], "magenta")] if change.cause in _CAUSES else []
    tags += [(str(change.disruption), _GRADES[change.disruption])] if change.disruption else []
    shown = "".join(f" [{text}]" for text, _ in tags)
    reasons = "; ".join(change.reasons)
    head = f"{change.part} {change.name}"
    room = _room(stream)
    painted = "".join(" " + paint(f"[{text}]", tint, stream) for text, tint in tags)
    line = f"  {paint(sign, colour, stream)} {head}{painted}:"
    if room is None or len(f"  {sign} {head}{shown}: {reasons}") <= room:
        print(f"{line} {reasons}", file=stream)
    else:
        print(line, file=stream)
        _print_wrapped(reasons, 6, stream)
    before, after = dict(change.before), dict(change.after)
    # Of what was cut off all fields are new: what charon had then is not known.
    if wide or (change.kind == "change" and change.cause != "cut off"):
        for name in sorted(before.keys() | after.keys()):
            _print_field(name, _value(before.get(name)), _value(after.get(name)), stream)


def _print_field(name: str, before: str, after: str, stream: IO[str]) -> None:
    """Print a field's old value and new one; where they have no room side by side, one below the other."""
    room = _room(stream)
    if room is None or len(f"      {name}: {before} -> {after}") <= room:
        print(f"      {name}: {paint(before, 'red', stream)} -> {paint(after, 'green', stream)}", file=stream)
        return
    print(f"      {name}:", file=stream)
    _print_wrapped(before, 11, stream, "red")
    _print_wrapped(after, 11, stream, "green", first="        -> ")


def _print_wrapped(
    text: str, indent: int, stream: IO[str], colour: str = "", *, first: str = "", label: str = ""
) -> None:
    """Print text in as many lines as the terminal needs for it, without breaking a name.

    ``first`` stands before it in the first line, and is printed as ``label`` where that is given: the same
    with colours.
    """
    from textwrap import wrap

    margin = " " * indent
    start = first or margin
    room = _room(stream) or len(start + text) + 1
    lines = wrap(
        text,
        room,
        initial_indent=start,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for number, line in enumerate(lines or [start]):
        begun = margin if number else start
        shown = begun if number else label or start
        rest = line.removeprefix(begun)
        print(f"{shown}{paint(rest, colour, stream) if colour else rest}", file=stream)


def _room(stream: IO[str]) -> int | None:
    """Return the columns of a terminal, ``None`` for what is none."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def _value(value: str | None) -> str:
    return "(not set)" if value is None else value or "(empty)"


def _print_summary(plans: tuple[GatewayPlan, ...], failed: int, stream: IO[str]) -> None:
    for line in _summary(plans, failed):
        _print_wrapped(line, 0, stream)


def _summary(plans: tuple[GatewayPlan, ...], failed: int) -> Iterator[str]:
    """Yield what the plans come to, a sentence a line: how much, what of it is drift, which tunnels."""
    changes = [change for plan in plans for change in plan.changes]
    if not changes and not failed and not any(plan.conflicts for plan in plans):
        gateways = f"{len(plans)} gateway{'s are' if len(plans) != 1 else ' is'}"
        waiting = [plan.gateway for plan in plans if plan.restart_for]
        if waiting:
            yield f"Nothing to apply: charon must be restarted on {', '.join(waiting)}."
        else:
            yield f"Nothing to do: {gateways} as the topology says."
        return
    counts = [(sum(c.kind == kind for c in changes), kind) for kind in _SIGNS]
    yield "Plan: " + ", ".join(f"{count} to {kind}" for count, kind in counts) + "."
    for cause, words in (
        ("drift", "{} of these {} drift: "),
        ("cut off", "{} of these {} left over from an apply that was cut off: "),
        ("not completed", "{} of these {} left from the last apply, which could not complete them: "),
    ):
        where = {
            plan.gateway: count for plan in plans if (count := sum(c.cause == cause for c in plan.changes))
        }
        if where:
            total = sum(where.values())
            said = words.format(total, "is" if total == 1 else "are")
            yield said + ", ".join(f"{name} ({count})" for name, count in where.items()) + "."
    yield from _tunnels(plans, bool(changes))
    if failed:
        yield f"{failed} gateway{'s' if failed != 1 else ''} could not be planned."


def _tunnels(plans: Collection[GatewayPlan], any_changes: bool) -> Iterator[str]:
    """Yield which running tunnels are disturbed, each with its worst grade, which are moved, which held."""
    worst: dict[str, Disruption] = {}
    for plan in plans:
        for name, grade in plan.disturbed.items():
            worst[name] = max(grade, worst.get(name, grade))
    disturbed = {name: grade for name, grade in sorted(worst.items()) if str(grade) != "rekey"}
    moved = sorted(worst.keys() - disturbed.keys())
    if disturbed:
        yield f"Disturbs {', '.join(f'{name} ({grade})' for name, grade in disturbed.items())}."
    elif any_changes:
        yield "No running tunnel is disturbed."
    for name, causes in sorted({hold.tunnel: hold.causes for plan in plans for hold in plan.held}.items()):
        yield f"Held back: {name}, as new SAs would not come up: {'; '.join(causes)}. {held_hint(name)}"
    if moved:
        yield f"Moved, new SAs before old ones are ended: {', '.join(moved)}."
