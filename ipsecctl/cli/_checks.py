"""What a probe found, on the screen: a table where there is room for one, else line after line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from ipsecctl.cli._view import console, terminal_width
from ipsecctl.probe import CHECKS, GUARD, Check, Outcome, TunnelReport

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["print_reports"]

_PLAIN_WIDTH = 140
_TABLE_WIDTH = 110
_COUNTED = {"holds": "hold", "fails": "FAIL", "could not run": "could not run"}
_STYLES = {"holds": "green", "fails": "bold red", "could not run": "yellow"}
_ORDER = (*CHECKS, GUARD)


def print_reports(reports: Sequence[TunnelReport], seconds: float) -> None:
    """Print the checks of each tunnel, and what all of them come to."""
    from rich.text import Text

    out = console(terminal_width() or _PLAIN_WIDTH)
    for report in reports:
        outcome = report.outcome.value
        out.print(Text.assemble(f"{report.name}: ", (outcome, _STYLES[outcome])))
        if out.width >= _TABLE_WIDTH:
            out.print(_table(report))
        else:
            _print_lines(out, report)
        _print_spared(out, report)
        out.print()
    checks = [check for report in reports for check in report.checks]
    counts = {outcome: sum(check.outcome is outcome for check in checks) for outcome in Outcome}
    parts = [f"{number} {_COUNTED[outcome]}" for outcome, number in counts.items() if number]
    out.print(f"{len(checks)} checks in {seconds:.1f} s: {', '.join(parts) or 'nothing to check'}.")


def _table(report: TunnelReport) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in ("check", "direction", "outcome", "expected", "measured"):
        table.add_column(column, no_wrap=column in ("check", "outcome"), overflow="fold")
    before = ""
    for check, direction, alike in _rows(report):
        table.add_row(
            check.check if check.check != before else "",
            direction,
            Text(check.outcome.value, _STYLES[check.outcome.value]),
            _figure(check.expected),
            _measured(check, alike),
        )
        before = check.check
    return table


def _print_lines(out: Console, report: TunnelReport) -> None:
    """Print the same for a narrow terminal: under each check its outcomes, each with what was seen."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    for name, rows in groupby(_rows(report), key=lambda row: row[0].check):
        lines = Table.grid(padding=(0, 2, 0, 0))
        lines.add_column(no_wrap=True)
        lines.add_column(overflow="fold")
        for check, direction, alike in rows:
            seen = f"{direction}: {_figure(check.expected)} expected; {_measured(check, alike)}"
            lines.add_row(Text(check.outcome.value, _STYLES[check.outcome.value]), Text(seen))
        out.print(Text(name, "bold"))
        out.print(Padding(lines, (0, 0, 0, 2)))


def _print_spared(out: Console, report: TunnelReport) -> None:
    for item in report.not_applicable:
        where = f"{item.flow}, {item.direction} IPv{item.family}"
        out.print(f"  {item.check} does not apply to {where}: {item.why}")


def _rows(report: TunnelReport) -> Iterator[tuple[Check, str, int]]:
    """Yield (check, direction, number of checks that it stands for), those of one kind together.

    Checks that hold alike, in one direction and family, are one row; what does not hold has rows of its own,
    with hosts.
    """
    groups: dict[tuple[object, ...], list[Check]] = {}
    for check in report.checks:
        figures = (check.check, check.direction, check.family, check.expected, check.measured)
        alike = figures if check.outcome is Outcome.HOLDS else (id(check),)
        groups.setdefault(alike, []).append(check)
    for found in sorted(groups.values(), key=lambda checks: _ORDER.index(checks[0].check)):
        first = found[0]
        alone = first.outcome is not Outcome.HOLDS and first.source
        direction = f"{first.source} -> {first.destination}" if alone else first.direction
        yield first, f"{direction} IPv{first.family}" if first.family else direction, len(found)


def _figure(value: int | str | None) -> str:
    return "-" if value is None else str(value)


def _measured(check: Check, alike: int) -> str:
    """Return the evidence, behind the figure where that is not as expected and not in it already."""
    figure = _figure(check.measured)
    told = check.measured in (None, check.expected) or figure in check.evidence
    seen = check.evidence if told else f"{figure}: {check.evidence}"
    return seen + (f" (and {alike - 1} more alike)" if alike > 1 else "")
