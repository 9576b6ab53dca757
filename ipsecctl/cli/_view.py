"""What all commands share on the screen: findings, errors, JSON, colour only where a person looks."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

from ipsecctl.errors import Diagnostic, IpsecctlError, Severity

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "console",
    "folded",
    "paint",
    "print_diagnostics",
    "print_error",
    "print_json",
    "say",
    "terminal_width",
    "too_narrow",
    "wants_colour",
]

_CODES = {
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
    "bold": "1",
    "dim": "2",
}
_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


def wants_colour(stream: IO[str]) -> bool:
    """Whether ``stream`` is a terminal whose user has not asked for plain text (``NO_COLOR``)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: IO[str]) -> str:
    """Return ``text`` in ``colour`` if ``stream`` shows colours, else as it is; nothing has no colour."""
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if text and wants_colour(stream) else text


def too_narrow(columns: int) -> int | None:
    """Return the width of a terminal that has no room for a table of so many columns, else ``None``."""
    width = terminal_width()
    return width if width is not None and columns > width else None


def terminal_width() -> int | None:
    """Return the columns of the terminal that standard output is, ``None`` when it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def console(width: int) -> Console:
    """Return what prints tables to standard output, ``width`` columns wide.

    Where no colours are wanted there is no bold either: not one escape sequence.
    """
    from rich.console import Console

    colour = wants_colour(sys.stdout)
    return Console(
        width=width,
        color_system="auto" if colour else None,
        force_terminal=colour,
        highlight=False,
        markup=False,
        emoji=False,
    )


def folded(row: str, last: str, width: int | None) -> Iterator[str]:
    """Yield a table's row as lines: as one, or with ``width`` columns its last cell below, wrapped."""
    if width is None:
        yield f"{row}  {last}".rstrip()
        return
    from textwrap import wrap

    yield row.rstrip()
    margin = " " * 4
    yield from wrap(
        last,
        width,
        initial_indent=margin,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    )


def say(text: str) -> None:
    """Talk to the person: standard error, standard output being data."""
    print(text, file=sys.stderr, flush=True)


def print_json(document: Any) -> None:
    """Print a JSON document to standard output."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def print_diagnostics(diagnostics: Iterable[Diagnostic], stream: IO[str] | None = None) -> None:
    """Print findings as ``file:line:column: severity CODE: summary`` with the hint below each."""
    out = stream if stream is not None else sys.stderr
    for finding in diagnostics:
        place = f"{finding.file}:{finding.line}:{finding.column}" if finding.line else finding.file
        label = paint(f"{finding.severity.label} {finding.code}", _COLOURS[finding.severity], out)
        print(f"{place}: {label}: {finding.summary}", file=out)
        if finding.hint:
            print(f"    {finding.hint}", file=out)


def print_error(error: IpsecctlError) -> None:
    """Print an error and how to mend it to standard error."""
    print(f"{paint('error', 'red', sys.stderr)}: {error.summary}", file=sys.stderr)
    if error.hint:
        print(f"    {error.hint}", file=sys.stderr)
