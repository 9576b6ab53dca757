"""``ipsecctl status``: every declared tunnel as both of its ends see it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipsecctl.cli._app import command_app
from ipsecctl.cli._sas import amount, sa_lines, span
from ipsecctl.cli._view import (
    console,
    print_diagnostics,
    print_error,
    print_json,
    terminal_width,
)
from ipsecctl.errors import CannotTell, GatewayUnreachable, IpsecctlError, TopologyRefused
from ipsecctl.patience import PATIENCE

if TYPE_CHECKING:
    from rich.table import Table

    from ipsecctl.deploy.survey import Survey
    from ipsecctl.health import ChildSa, EndView, TunnelHealth

__all__ = ["app"]

app = command_app()

_COLOURS = {"down": "red", "unknown": "magenta", "degraded": "yellow", "up": "green"}
_PLAIN_WIDTH = 200
_GAP = 2
_TITLES = ("tunnel", "verdict", "ends", "ESP", "left out", "left in", "age", "rekey in", "NAT-T")
_RIGHT = frozenset(("left out", "left in", "age", "rekey in"))
_BY_IMPORTANCE = (("ends",), ("left out", "left in"), ("rekey in",), ("ESP",), ("age",), ("NAT-T",))


@app.command()
def status(
    file: Annotated[Path, typer.Argument(help="Topology file.", metavar="FILE")],
    lab: Annotated[
        str | None, typer.Option(help="All gateways are the containers of this lab.", metavar="NAME")
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="How long to wait for gateways, in all.", metavar="SECONDS", min=0.1)
    ] = 3.5 * PATIENCE,  # LOOK_S, imported later
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Then both ends' IKE_SAs and CHILD_SAs in full.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show every declared tunnel, worst first, as both of its ends see it.

    "up" means that for each child a CHILD_SA is INSTALLED at both ends and their SPIs match crosswise. A
    gateway that does not answer makes its tunnels unknown and costs at most the timeout, once; so does one
    whose charon alone is silent, after 70 % of it. No secret is
    needed, and none is looked at. Exit status: 0 all up, 1 not all up, 3 could not tell, as of a topology
    that cannot be read or has errors.

    A tunnel that is up on SAs of an earlier configuration, as the last change could not be completed, is up
    with a note that says so: 'ipsecctl apply', which was to change it, exits with 1.

    With --verbose each SA follows: algorithms, selectors, SPIs and where the other end has them, bytes and
    packets, age and rekey.

    \b
    Examples:
      ipsecctl status clinics.yaml
      ipsecctl status clinics.yaml --verbose
      ipsecctl status topologies/clinic-dc.yaml --lab clinic-dc --json
    """
    from ipsecctl.cli._interrupt import run, telling

    def interrupted() -> str:
        return "Interrupted while the gateways were looked at; status changes nothing."

    with telling(interrupted):
        from ipsecctl.cli._load import lab_called, load_topology
        from ipsecctl.deploy.survey import survey
        from ipsecctl.health import exit_status, status_json

        with _not_known(file, json=json):
            topology = load_topology(file, quiet=True, secrets=False)
            seen = run(survey(topology, lab=lab_called(lab), timeout_s=timeout), interrupted)
    if json:
        print_json(status_json(seen.tunnels, seen.views, seen.time))
    else:
        _print_survey(seen)
        if verbose:
            print("\n" + "\n".join(line for tunnel in seen.tunnels for line in sa_lines(tunnel)))
    raise typer.Exit(exit_status(seen.tunnels))


@contextmanager
def _not_known(file: Path, *, json: bool) -> Iterator[None]:
    """Tell of an error of the block, with ``json`` as ``ipsecctl/status/1``, and end: could not tell."""
    try:
        yield
    except (IpsecctlError, OSError) as caught:
        error = caught if isinstance(caught, IpsecctlError) else IpsecctlError(str(caught))
        if isinstance(error, TopologyRefused):
            print_diagnostics(error.diagnostics)
        else:
            print_error(error)
        if json:
            from datetime import UTC, datetime

            from ipsecctl.cli._load import findings_of
            from ipsecctl.health import nothing_known_json

            print_json(nothing_known_json(error.summary, findings_of(error, file), datetime.now(UTC)))
        raise typer.Exit(CannotTell.exit_status) from caught


def _print_survey(seen: Survey) -> None:
    from ipsecctl.health import headline, left_over

    width = terminal_width()
    columns = _columns(seen.tunnels)
    shown = columns if width is None else _fitting(columns, width)
    out = console(width or max(_PLAIN_WIDTH, _width(columns)))
    out.print(headline(seen.tunnels))
    if seen.tunnels:
        out.print(_table(seen.tunnels, shown, out.width))
    if left_out := ", ".join(column.title for column in columns if column not in shown):
        out.print(f"no room for: {left_out} (a wider terminal has it, and --json)")
    for tunnel in seen.tunnels:
        for cause in tunnel.causes:
            out.print(f"{tunnel.name}: {cause}", soft_wrap=True)
    for name, connections in left_over(seen.tunnels, seen.views).items():
        what = f"SAs of {', '.join(connections)}, which the topology does not declare any more"
        out.print(f"{name}: {what}: apply ends them", soft_wrap=True)
    for line in (*_unconfirmed(seen), *_how_to_mend(seen)):
        out.print(line, soft_wrap=True)


def _how_to_mend(seen: Survey) -> Iterator[str]:
    """Yield what is to be done about gateways that do not answer, once where it is the same for several."""
    hints: dict[str, list[str]] = {}
    for name, view in sorted(seen.views.items()):
        if isinstance(view, GatewayUnreachable) and view.hint:
            hints.setdefault(view.hint, []).append(name)
    for hint, names in hints.items():
        yield f"{', '.join(names)}: {hint}"


def _unconfirmed(seen: Survey) -> Iterator[str]:
    """Yield what is to be said of gateways that would go back, or are about to."""
    from ipsecctl.deploy.survey import unconfirmed
    from ipsecctl.store import span as time_left

    for name, pending in unconfirmed(seen.views):
        if pending.going:
            yield f"{name}: is going back: the apply of {pending.owner} was not confirmed"
        else:
            left = time_left(timedelta(seconds=pending.left_s))
            yield f"{name}: goes back in {left} unless 'ipsecctl confirm' keeps the apply of {pending.owner}"


@dataclass(frozen=True, slots=True)
class _Column:
    """A column: its cells from top to bottom, and with ``narrowest`` how many characters it needs."""

    title: str
    cells: tuple[str, ...]
    narrowest: int
    right: bool = False

    @property
    def widest(self) -> int:
        return max(map(len, (self.title, *self.cells)))


def _columns(tunnels: tuple[TunnelHealth, ...]) -> tuple[_Column, ...]:
    """Return all columns, from left to right."""
    pairs = tuple(" - ".join(end.gateway for end in tunnel.ends) for tunnel in tunnels)
    rows = [(tunnel.name, str(tunnel.verdict), _ends(tunnel), *_traffic(tunnel)) for tunnel in tunnels]
    columns = zip(*rows, strict=True) if rows else ((),) * len(_TITLES)
    return tuple(
        _Column(
            title,
            cells,
            max(map(len, (title, *(pairs if title == "ends" else cells)))),
            title in _RIGHT,
        )
        for title, cells in zip(_TITLES, columns, strict=True)
    )


def _fitting(columns: tuple[_Column, ...], width: int) -> tuple[_Column, ...]:
    """Return the columns that fit into ``width``, by their importance; name and verdict always do."""
    kept = set(_TITLES[:2])
    for titles in _BY_IMPORTANCE:
        more = kept | set(titles)
        if _width((c for c in columns if c.title in more), narrow=True) <= width:
            kept = more
    return tuple(column for column in columns if column.title in kept)


def _width(columns: Iterable[_Column], *, narrow: bool = False) -> int:
    widths = [column.narrowest if narrow else column.widest for column in columns]
    return sum(widths) + _GAP * (len(widths) - 1)


def _table(tunnels: tuple[TunnelHealth, ...], columns: tuple[_Column, ...], width: int) -> Table:
    """Lay the columns out: what they need, and the rest of ``width`` to the notes beside the ends."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    spare = width - _width(columns, narrow=True)
    for column in columns:
        size = column.narrowest
        if column.title == "ends":
            size = min(column.widest, size + max(0, spare))
        elif column.title == "tunnel" and spare < 0:
            size = max(1, size + spare)  # a name wider than the terminal goes on in the next line
        table.add_column(
            column.title, width=size, justify="right" if column.right else "left", overflow="fold"
        )
    for number, tunnel in enumerate(tunnels):
        cells = [Text(column.cells[number]) for column in columns]
        cells[1].stylize(_COLOURS[str(tunnel.verdict)])
        table.add_row(*cells)
    return table


def _ends(tunnel: TunnelHealth) -> str:
    names = [end.gateway for end in tunnel.ends]
    notes = [f"{end.gateway} {end.state}" for end in tunnel.ends if end.state != "seen"]
    return " - ".join(names) + (f" ({', '.join(notes)})" if notes else "")


def _traffic(tunnel: TunnelHealth) -> tuple[str, ...]:
    """Return suite, traffic out and in, age, next rekey and NAT-T, as seen by the left end if it is seen."""
    left, right = tunnel.ends
    children = _carrying(left) or _carrying(right)
    if not children:
        return ("-",) * 6
    flipped = not _carrying(left)
    out = amount(sum(c.bytes_out for c in children), sum(c.packets_out for c in children))
    back = amount(sum(c.bytes_in for c in children), sum(c.packets_in for c in children))
    return (
        ", ".join(sorted({child.suite for child in children})),
        *((back, out) if flipped else (out, back)),
        span(max((c.age_s for c in children if c.age_s is not None), default=None)),
        span(min((c.rekey_in_s for c in children if c.rekey_in_s is not None), default=None)),
        "yes" if any(child.encapsulated for child in children) else "no",
    )


def _carrying(end: EndView) -> list[ChildSa]:
    return [child for sa in end.sas for child in sa.children if child.carries]
