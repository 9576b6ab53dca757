"""``ipsecctl history``: who applied what, when, and what happened on each gateway."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Annotated

import typer

from ipsecctl.cli._app import command_app
from ipsecctl.cli._store import LabOption, StoreOption
from ipsecctl.cli._view import paint

if TYPE_CHECKING:
    from ipsecctl.store import GatewayRow, Lock, Revision

__all__ = ["app"]

app = command_app()

_COLOURS = {
    "applied": "green",
    "failed": "red",
    "cut off": "red",
    "interrupted": "yellow",
    "refused": "yellow",
    "under way": "cyan",
    "pending": "yellow",
    "unchanged": "dim",
}


_NOT_HEARD = {
    "pending": "it has not said yet what became of it",
    "interrupted": "how far it came was not heard: the next apply does what is left",
    "cut off": "how far it came was not heard: the next apply does what is left",
    "refused": "nothing was done",
}


@app.callback(invoke_without_command=True)
def history(
    ctx: typer.Context,
    topology: Annotated[
        str | None, typer.Option(help="Only those of this topology (its name).", metavar="NAME")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", help="So many at most; 0 for all.", metavar="N", min=0)
    ] = 20,
    store: StoreOption = None,
    lab: LabOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """Show what was applied, newest first: who, when, which topology, what came of it; and who is at work.

    An apply that found nothing to do is not in it. Times are local; in JSON they are UTC. Exit status: 3 when
    the store cannot be read.

    \b
    Examples:
      ipsecctl history
      ipsecctl history --topology clinics --limit 5 --json
      ipsecctl history --lab clinic-dc
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = (store, lab)
        return
    from ipsecctl.cli._load import lab_called
    from ipsecctl.cli._store import open_store
    from ipsecctl.cli._view import print_json
    from ipsecctl.store import history_json

    with open_store(store, lab_called(lab)) as opened:
        revisions, locks = opened.revisions(topology, limit), opened.locks()
    if json:
        print_json(history_json(str(opened.location), revisions, locks))
        return
    if not revisions:
        of = f" of a topology named {topology}" if topology is not None else ""
        print(f"No apply{of} is recorded in {opened.location}.")
    _print_rows(_rows(revisions), sys.stdout)
    for line in _lock_lines(locks):
        print(line)


@app.command()
def show(
    ctx: typer.Context,
    number: Annotated[int, typer.Argument(help="Number of the revision.", metavar="N", min=1)],
    text: Annotated[bool, typer.Option("--text", help="Print its topology file, and nothing else.")] = False,
    store: StoreOption = None,
    lab: LabOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Show one revision: what was to change, and what happened on each gateway.

    Exit status: 1 when there is none of that number, 3 when the store cannot be read.

    \b
    Examples:
      ipsecctl history show 42
      ipsecctl history show 42 --text > clinics-before.yaml
    """
    from ipsecctl.cli._load import lab_called
    from ipsecctl.cli._store import open_store
    from ipsecctl.cli._view import print_json
    from ipsecctl.store import revision_json

    if text and json:
        raise typer.BadParameter("say one of --text and --json", param_hint="--text")
    store_before, lab_before = ctx.obj  # what stands between "history" and "show" counts as well
    with open_store(store or store_before, lab_called(lab or lab_before)) as opened:
        revision = opened.revision(number)
    if text:
        print(revision.text, end="")
    elif json:
        print_json(revision_json(str(opened.location), revision))
    else:
        _print_revision(revision, sys.stdout)


def _rows(revisions: tuple[Revision, ...]) -> Iterator[tuple[str, ...]]:
    from ipsecctl.cli._store import local_time

    for revision in revisions:
        yield (
            str(revision.number),
            local_time(revision.began),
            revision.owner.person,
            revision.topology + (f" (lab {revision.lab})" if revision.lab else ""),
            revision.sha256[:12],
            str(revision.outcome),
            _gateways(revision),
            _remark(revision),
        )


def _remark(revision: Revision) -> str:
    back = f"rollback to {revision.rollback_of}" if revision.rollback_of else ""
    confirmation = f"confirmation: {revision.confirmation}" if revision.confirmation else ""
    return "; ".join(filter(None, (back, revision.message, confirmation)))


def _gateways(revision: Revision) -> str:
    from ipsecctl.store import GatewayOutcome

    counts = [(outcome, revision.count(outcome)) for outcome in GatewayOutcome]
    return ", ".join(f"{count} {outcome}" for outcome, count in counts if count)


_HEADINGS = ("N", "began", "who", "topology", "digest", "outcome", "gateways", "message")


def _print_rows(rows: Iterator[tuple[str, ...]], stream: IO[str]) -> None:
    """Print a table as wide as it is: nothing is shortened, the message comes last."""
    table = [*rows]
    if not table:
        return
    wide = [max(len(row[n]) for row in (_HEADINGS, *table)) for n in range(len(_HEADINGS))]
    heading = "  ".join(text.ljust(width) for text, width in zip(_HEADINGS, wide, strict=True)).rstrip()
    print(paint(heading, "bold", stream), file=stream)
    for row in table:
        cells = [text.ljust(width) for text, width in zip(row, wide, strict=True)]
        last = max(n for n, text in enumerate(row) if text)
        cells[last] = row[last]
        outcome = _HEADINGS.index("outcome")
        cells[outcome] = paint(cells[outcome], _COLOURS[row[outcome]], stream)
        print("  ".join(cells[: last + 1]), file=stream)


def _lock_lines(locks: tuple[Lock, ...]) -> Iterator[str]:
    from ipsecctl.store import span

    now = datetime.now(UTC)
    for lock in locks:
        left = "" if lock.alive else f", last heard of {span(now - lock.heard)} ago: the next apply takes it"
        yield f"{lock.claim.name} is locked by {lock.owner} for {span(now - lock.since)}{left}."


def _print_revision(revision: Revision, stream: IO[str]) -> None:
    from ipsecctl.cli._store import local_time

    outcome = paint(str(revision.outcome), _COLOURS[str(revision.outcome)], stream)
    ended = f" to {local_time(revision.ended)}" if revision.ended else ""
    lines = [
        ("revision", f"{revision.number}: {outcome}{f' ({revision.error})' if revision.error else ''}"),
        ("when", local_time(revision.began) + ended),
        ("who", f"{revision.owner}, ipsecctl {revision.version}"),
        ("topology", f"{revision.topology}{f', lab {revision.lab}' if revision.lab else ''}"),
        ("file", f"{revision.file}, SHA-256 {revision.sha256}"),
        ("message", revision.message),
        ("rollback", f"to revision {revision.rollback_of}" if revision.rollback_of else ""),
        ("confirm", revision.confirmation),
    ]
    for name, value in lines:
        if value:
            print(f"{name:<9} {value}", file=stream)
    changes: dict[str, list[str]] = {}
    for change in revision.plan.get("changes", ()):
        grade = f" [{change['disruption']}]" if change["disruption"] != "none" else ""
        sign = {"create": "+", "change": "~", "remove": "-"}[change["kind"]]
        changes.setdefault(change["gateway"], []).append(
            f"  {sign} {change['part']} {change['name']}{grade}: {'; '.join(change['reasons'])}"
        )
    for row in revision.gateways:
        print(f"\n{paint(row.name, 'bold', stream)}: {_happened(row, stream)}", file=stream)
        if row.hint:
            print(f"      {row.hint}", file=stream)
        for line in changes.get(row.name, ()):
            print(line, file=stream)
    if revision.tunnels:
        print(file=stream)
    for tunnel in revision.tunnels:
        causes = f": {'; '.join(tunnel['causes'])}" if tunnel["causes"] else ""
        print(f"tunnel {tunnel['name']} {tunnel['verdict']}{causes}", file=stream)


def _happened(row: GatewayRow, stream: IO[str]) -> str:
    word = paint(str(row.outcome), _COLOURS[str(row.outcome)], stream)
    counted = f", {row.changes} change{'' if row.changes == 1 else 's'}" if row.changes else ""
    took = f" in {row.took_s:.1f} s" if row.took_s is not None and row.changes else ""
    if str(row.outcome) in _NOT_HEARD:
        return f"{word}{counted}{f' planned; {_NOT_HEARD[str(row.outcome)]}' if row.changes else ''}"
    return f"{word}{counted}{took}{f': {row.error}' if row.error else ''}"
