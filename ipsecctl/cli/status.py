"""``ipsecctl status``: every declared tunnel as both of its ends see it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipsecctl.cli._view import print_json, wants_colour

if TYPE_CHECKING:
    from rich.table import Table

    from ipsecctl.deploy.survey import Survey
    from ipsecctl.health import ChildSa, EndView, TunnelHealth

__all__ = ["app"]

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COLOURS = {"down": "red", "unknown": "magenta", "degraded": "yellow", "up": "green"}
_PLAIN_WIDTH = 200


@app.command()
def status(
    file: Annotated[Path, typer.Argument(help="Topology file.", metavar="FILE")],
    lab: Annotated[
        str | None, typer.Option(help="All gateways are the containers of this lab.", metavar="NAME")
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="How long to wait for gateways, in all.", metavar="SECONDS", min=0.1)
    ] = 4.0,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show every declared tunnel, worst first, as both of its ends see it.

    "up" means that for each child a CHILD_SA is INSTALLED at both ends and their SPIs match crosswise. A
    gateway that does not answer makes its tunnels unknown and costs at most the timeout, once. Exit status:
    0 all up, 1 not all up, 3 could not tell.

    \b
    Examples:
      ipsecctl status clinics.yaml
      ipsecctl status topologies/clinic-dc.yaml --lab clinic-dc --json
    """
    import asyncio

    from ipsecctl.cli._load import load_topology
    from ipsecctl.deploy.survey import survey
    from ipsecctl.health import exit_status, status_json

    topology = load_topology(file, quiet=True)
    seen = asyncio.run(survey(topology, lab=lab, timeout_s=timeout))
    if json:
        print_json(status_json(seen.tunnels, seen.views, seen.time))
    else:
        _print_survey(seen)
    raise typer.Exit(exit_status(seen.tunnels))


def _print_survey(seen: Survey) -> None:
    from rich.console import Console

    from ipsecctl.health import headline

    plain = None if sys.stdout.isatty() else _PLAIN_WIDTH
    console = Console(width=plain, no_color=not wants_colour(sys.stdout), highlight=False, markup=False)
    console.print(headline(seen.tunnels))
    if seen.tunnels:
        console.print(_table(seen.tunnels))
    for tunnel in seen.tunnels:
        for cause in tunnel.causes:
            console.print(f"{tunnel.name}: {cause}", soft_wrap=True)


def _table(tunnels: tuple[TunnelHealth, ...]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in ("tunnel", "verdict", "ends", "ESP"):
        table.add_column(title)
    for title in ("left out", "left in", "age", "rekey in"):
        table.add_column(title, justify="right")
    table.add_column("NAT-T")
    for tunnel in tunnels:
        verdict = str(tunnel.verdict)
        table.add_row(tunnel.name, Text(verdict, style=_COLOURS[verdict]), _ends(tunnel), *_traffic(tunnel))
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
    out = _amount(sum(c.bytes_out for c in children), sum(c.packets_out for c in children))
    back = _amount(sum(c.bytes_in for c in children), sum(c.packets_in for c in children))
    return (
        ", ".join(sorted({child.suite for child in children})),
        *((back, out) if flipped else (out, back)),
        _span(max((c.age_s for c in children if c.age_s is not None), default=None)),
        _span(min((c.rekey_in_s for c in children if c.rekey_in_s is not None), default=None)),
        "yes" if any(child.encapsulated for child in children) else "no",
    )


def _carrying(end: EndView) -> list[ChildSa]:
    return [child for sa in end.sas for child in sa.children if child.carries]


def _amount(size: int, packets: int) -> str:
    amount, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{amount:.{0 if units[0] == 'B' else 1}f} {units[0]} / {packets} p"


def _span(time_s: int | None) -> str:
    if time_s is None:
        return "-"
    hours, minutes = divmod(time_s // 60, 60)
    return f"{hours}:{minutes:02}:{time_s % 60:02}" if hours else f"{minutes}:{time_s % 60:02}"
