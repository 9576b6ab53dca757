"""A fleet on the command line: which gateways, in which batches; a bar while it goes, a table after it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ipsecctl.cli._view import folded, paint, terminal_width, wants_colour
from ipsecctl.errors import IpsecctlError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ipsecctl.deploy.fleet import Rollout
    from ipsecctl.deploy.outcome import Applied, GatewayResult
    from ipsecctl.plan import Batch, Share
    from ipsecctl.topology import Topology

__all__ = [
    "Bar",
    "BatchOption",
    "CanaryOption",
    "Fleet",
    "LimitOption",
    "MaxFailOption",
    "RetryOption",
    "batch_lines",
    "batches_json",
    "fleet_of",
    "half_line",
    "result_rows",
    "wants_table",
]

_NAMED = 5
_FEW = 2
"""Up to so many gateways need no table: their lines are on the screen yet."""


def _names(ctx: typer.Context, names: Callable[[Topology], Iterable[str]], incomplete: str) -> list[str]:
    """Complete a name of the topology whose file stands before it on the command line."""
    from ipsecctl.topology import load_bytes

    file = ctx.params.get("file")
    try:
        known = load_bytes(Path(file).read_bytes(), str(file)).known if file else None
    except (OSError, IpsecctlError):
        return []
    return sorted({name for name in names(known) if name.startswith(incomplete)}) if known else []


def _gateways(ctx: typer.Context, incomplete: str) -> list[str]:
    def names(topology: Topology) -> Iterator[str]:
        for gateway in topology.gateways():
            if gateway.managed:
                yield from (gateway.name, gateway.site)

    return _names(ctx, names, incomplete)


def _sites(ctx: typer.Context, incomplete: str) -> list[str]:
    return _names(ctx, lambda topology: (g.site for g in topology.gateways() if g.managed), incomplete)


LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Change only these: a gateway or site, also with * and ?. Can be said several times.",
        metavar="GLOB",
        autocompletion=_gateways,
    ),
]
CanaryOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Change this site first, and the others only if it is well. Can be said several times.",
        metavar="SITE",
        autocompletion=_sites,
    ),
]
BatchOption = Annotated[
    str | None,
    typer.Option(help="So many gateways at a time, each lot only if the one before is well.", metavar="N|N%"),
]
MaxFailOption = Annotated[
    str | None,
    typer.Option("--max-fail", help="Go on until more gateways than this have failed.", metavar="N|N%"),
]
RetryOption = Annotated[
    bool, typer.Option("--retry-failed", help="Only the gateways that failed in the last revision.")
]


@dataclass(frozen=True, slots=True)
class Fleet:
    """What was said of the way over a fleet; ``limit`` and ``canary`` are names, as they were typed."""

    limit: tuple[str, ...] = ()
    canary: tuple[str, ...] = ()
    size: Share | None = None
    max_fail: Share | None = None
    retry_failed: bool = False

    @property
    def said(self) -> bool:
        """Whether anything was."""
        return self != Fleet()

    def gateways(self, topology: Topology, failed: Callable[[], Iterable[str]]) -> frozenset[str] | None:
        """Return the gateways that are meant, ``None`` for all. ``failed`` tells those to try again.

        Raises ``IpsecctlError`` for a name that is none.
        """
        from ipsecctl.plan import limited

        chosen = limited(topology, self.limit) if self.limit else None
        if not self.retry_failed:
            return chosen
        ours = {gateway.name for gateway in topology.gateways() if gateway.managed}
        again = frozenset(failed()) & ours
        return again if chosen is None else chosen & again

    def noted(self, message: str, limit: frozenset[str] | None) -> str:
        """Return a message for the history that says, too, where not all gateways were meant."""
        if limit is None:
            return message
        only = f"only {', '.join(sorted(limit)[:_NAMED])}" + (", ..." if len(limit) > _NAMED else "")
        return f"{message} ({only})" if message else only

    def rollout(self, topology: Topology, limit: frozenset[str] | None) -> Rollout:
        """Return the way over the gateways. Raises ``IpsecctlError`` for a canary that is none."""
        from ipsecctl.deploy.fleet import Rollout
        from ipsecctl.plan import gateways_of_sites

        canary = gateways_of_sites(topology, self.canary)
        if limit is not None and not self.retry_failed and canary - limit:
            raise IpsecctlError(
                f"--canary: {', '.join(sorted(canary - limit))} is not in --limit",
                "Say a site of which all gateways are in the limit, or a wider limit.",
            )
        return Rollout(canary, self.size, self.max_fail)


def fleet_of(
    limit: list[str] | None = None,
    canary: list[str] | None = None,
    batch: str | None = None,
    max_fail: str | None = None,
    retry_failed: bool = False,
) -> Fleet:
    """Return what these options say. Raises ``typer.BadParameter`` for a number that is none."""
    return Fleet(
        tuple(limit or ()),
        tuple(canary or ()),
        _share(batch, "--batch", 1),
        _share(max_fail, "--max-fail", 0),
        retry_failed,
    )


def _share(text: str | None, option: str, least: int) -> Share | None:
    if text is None:
        return None
    from ipsecctl.plan import parse_share

    try:
        return parse_share(text, least=least)
    except IpsecctlError as error:
        raise typer.BadParameter(f"{error.summary}. {error.hint}", param_hint=option) from None


# ------------------------------------------------------------------------------------------------ the batches


def batch_lines(batches: Iterable[Batch]) -> Iterator[str]:
    """Yield in which order gateways are changed, a line a batch."""
    for batch in batches:
        what = "the canary" if batch.canary else f"batch {batch.number}"
        along = f"; as the other end of their tunnels: {', '.join(batch.along)}" if batch.along else ""
        chosen = [name for name in batch.gateways if name not in batch.along]
        yield f"{what[0].upper()}{what[1:]}: {', '.join(chosen)}{along}."


def batches_json(batches: Iterable[Batch]) -> list[dict[str, Any]]:
    """Return the same for JSON."""
    return [
        {
            "number": batch.number,
            "canary": batch.canary,
            "gateways": list(batch.gateways),
            "along": list(batch.along),
        }
        for batch in batches
    ]


# ------------------------------------------------------------------------------------------------ the outcome


def wants_table(applied: Applied, fleet: Fleet) -> bool:
    """Whether the outcome has a table: where there is more than fits a look."""
    return not applied.nothing_done and (fleet.said or len(applied.gateways) > _FEW)


def result_rows(gateways: Iterable[GatewayResult], *, batches: bool = True) -> Iterator[str]:
    """Yield the table of results: gateway, batch, outcome, seconds, cause; each batch by itself.

    Without ``batches`` it has no column for them.
    """
    rows = [("GATEWAY", "BATCH", "OUTCOME", "SECONDS", "CAUSE")]
    rows += [
        (
            result.name,
            str(result.batch or "-"),
            result.outcome,
            f"{result.took_s:.1f}" if result.begun else "-",
            result.error.summary.removeprefix(f"{result.name}: ") if result.error else "",
        )
        for result in sorted(gateways, key=lambda result: (result.batch, result.name))
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row[:4], widths, strict=True)]
        cells[1], cells[3] = row[1].rjust(widths[1]), row[3].rjust(widths[3])
        if not batches:
            del cells[1]
        line, width = "  ".join(cells), terminal_width()
        fits = width is None or len(f"{line}  {row[4]}") <= width or not row[4]
        for text in folded(line, row[4], None if fits else width):
            yield paint(text, "bold", sys.stdout) if number == 0 else text


def half_line(applied: Applied) -> str:
    """Return what is to be said of tunnels of which one end only was changed, "" where there is none."""
    if not applied.half:
        return ""
    tunnels = "; ".join(f"{name} ({', '.join(others)})" for name, others in applied.half.items())
    return f"Changed at one end only, as the other is not in --limit: {tunnels}."


# ---------------------------------------------------------------------------------------------------- the bar


class Bar:
    """A progress bar on a terminal, below the lines that are printed meanwhile; elsewhere nothing."""

    def __init__(self, gateways: int, tunnels: int) -> None:
        self._progress: Progress | None = None
        self._gateways: TaskID | None = None
        self._tunnels: TaskID | None = None
        self._totals = (gateways, tunnels)

    def start(self) -> None:
        """Show it, where standard error is a terminal."""
        if not wants_colour(sys.stderr):
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True, highlight=False),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        gateways, tunnels = self._totals
        self._gateways = self._progress.add_task("gateways", total=gateways)
        self._tunnels = self._progress.add_task("tunnels", total=tunnels)
        self._progress.start()

    def step(self, *, gateways: int, tunnels: int) -> None:
        """Say how many are done."""
        if self._progress is not None and self._gateways is not None and self._tunnels is not None:
            self._progress.update(self._gateways, completed=min(gateways, self._totals[0]))
            self._progress.update(self._tunnels, completed=min(tunnels, self._totals[1]))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take it away while something is printed."""
        if self._progress is None:
            yield
            return
        self._progress.stop()
        try:
            yield
            sys.stdout.flush()
        finally:
            self._progress.start()

    def stop(self) -> None:
        """Take it away for good."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
