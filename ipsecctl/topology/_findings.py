"""Collecting findings: where they are, and which of them only follow from one already reported."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Hashable, Iterable
from typing import Final

from ipsecctl.errors import Diagnostic, Severity, worst_first
from ipsecctl.topology._yaml import Source
from ipsecctl.topology.model import Path

__all__ = ["Findings", "listed", "plural"]

# Finding the nearest name compares with each known one: enough for a thousand typing errors in a small file
# or for a few in one of ten thousand sites, and never more than a second or two.
_COMPARISONS: Final = 30_000


class Findings:
    """The findings of one file, and what of the document had to be left out because it was wrong.

    Values that were left out ("damaged") are remembered, so that what is missing for their sake alone is not
    reported as a second mistake.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._found: list[Diagnostic] = []
        self._removed: set[Path] = set()
        self._around: set[Path] = set()
        self._causes: set[Hashable] = set()
        self._comparisons = _COMPARISONS

    def error(self, code: str, path: Path, summary: str, hint: str, *, key: bool = False) -> None:
        self._add(Severity.ERROR, code, path, (summary, hint), key=key)

    def warning(self, code: str, path: Path, summary: str, hint: str, *, key: bool = False) -> None:
        self._add(Severity.WARNING, code, path, (summary, hint), key=key)

    def info(self, code: str, path: Path, summary: str, hint: str, *, key: bool = False) -> None:
        self._add(Severity.INFO, code, path, (summary, hint), key=key)

    def at(self, code: str, line: int, column: int, summary: str, hint: str) -> None:
        """Add an error about the text itself."""
        self._found.append(Diagnostic(Severity.ERROR, code, summary, hint, self._source.file, line, column))

    def line(self, path: Path) -> int:
        """Return the line of a value, for a summary that names a second place."""
        return self._source.locate(path)[0]

    def nearest_place(self, *paths: Path) -> Path:
        """Return the first of these paths at which the file itself says something, else the last."""
        return next((path for path in paths if self._source.holds(path)), paths[-1])

    def says(self, path: Path) -> bool:
        """Return whether the file itself says something at ``path``."""
        return self._source.holds(path)

    def first(self, *cause: Hashable) -> bool:
        """Return whether this cause comes up for the first time: one mistake, one finding."""
        new = cause not in self._causes
        self._causes.add(cause)
        return new

    def did_you_mean(self, word: str, known: Collection[str], otherwise: str) -> str:
        """Return the hint for an unknown name: the nearest known one, or else ``otherwise``."""
        near = self.nearest(word, known)
        return f"did you mean {near!r}?" if near is not None else otherwise

    def nearest(self, word: str, known: Collection[str]) -> str | None:
        """Return the known name that an unknown one is most like, ``None`` when it is like none."""
        self._comparisons -= len(known)
        folded = {name.lower(): name for name in known} if self._comparisons >= 0 else {}
        plain = word.lower()
        near = difflib.get_close_matches(plain, folded, n=1, cutoff=0.6)
        if not near and len(plain) >= 3:
            near = [name for name in folded if plain in name or (len(name) >= 3 and name in plain)]
        return folded[near[0]] if near else None

    def damage(self, path: Path) -> None:
        """Remember that the value at ``path`` was wrong and is left out."""
        if path and isinstance(path[-1], int):
            # Another item of the list takes its number.
            path = (*path[:-1], -1)
        self._removed.add(path)
        self._around.update(path[:depth] for depth in range(len(path)))

    def damaged(self, path: Path) -> bool:
        """Return whether something at, below or around ``path`` was left out."""
        if not self._removed:
            return False
        return path in self._around or any(path[:depth] in self._removed for depth in range(len(path) + 1))

    def gone(self, path: Path) -> bool:
        """Return whether the value at ``path``, or one around it, was left out as a whole."""
        return any(path[:depth] in self._removed for depth in range(len(path) + 1))

    def lost(self, path: Path) -> set[str]:
        """Return the names of the entries that were left out of the mapping at ``path``."""
        return {str(r[-1]) for r in self._removed if len(r) == len(path) + 1 and r[:-1] == path}

    @property
    def has_errors(self) -> bool:
        return any(d.severity is Severity.ERROR for d in self._found)

    def sorted(self) -> tuple[Diagnostic, ...]:
        return worst_first(self._found)

    def _add(self, severity: Severity, code: str, path: Path, texts: tuple[str, str], *, key: bool) -> None:
        line, column = self._source.locate(path, key=key)
        summary, hint = texts
        self._found.append(Diagnostic(severity, code, summary, hint, self._source.file, line, column))


def listed(names: Iterable[str], most: int = 8) -> str:
    """Return names as a person would list them, the first few only."""
    every = list(names)
    shown = ", ".join(every[:most])
    return f"{shown} and {len(every) - most} more" if len(every) > most else shown


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
