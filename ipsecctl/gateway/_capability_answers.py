"""The answers of the script, line by line, and what one refusal or one command's exit status means."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from ipsecctl.gateway.capabilities import Answer, Has

__all__ = ["Answers", "read_answers"]

_LINE = re.compile(r"(?P<name>[a-z][a-z0-9_]*(?: [a-z0-9-]+)?) (?P<sign>[|=?]) ?(?P<rest>.*)", re.DOTALL)

# What kernels say (extack, or the text of EPROTONOSUPPORT, ENOSYS, ENOENT, EOPNOTSUPP) when they lack
# something; all else, such as a lack of rights, says nothing about what they have.
_LACKING: Final = (
    "type not found",
    "algorithm not found",
    "unable to initialize cryptographic",
    "protocol not supported",
    "function not implemented",
    "no such file or directory",
    "unknown device type",
    "operation not supported",
)
# What ip says of a word that it does not know: then nobody has asked the kernel.
_UNKNOWN_TO_IP: Final = ("is wrong", "usage:", "is a garbage", "is unknown", "what is")


@dataclass(frozen=True, slots=True)
class Answers:
    """What was printed under each name: lines, exit statuses with what was complained about, and refusals."""

    lines: dict[str, tuple[str, ...]]
    statuses: dict[str, tuple[int, str]]
    refusals: dict[str, str]

    def first(self, name: str) -> str:
        return next(iter(self.lines.get(name, ())), "")

    def ended_well(self, name: str) -> bool:
        return self.statuses.get(name, (-1, ""))[0] == 0

    def why_not(self, name: str) -> str:
        """Return why a question has no answer."""
        if name in self.refusals:
            return self.refusals[name]
        status, said = self.statuses.get(name, (None, ""))
        if status is None:
            return "it was not asked"
        if status == 124:
            return "the command for it did not end in time"
        return said or f"the command for it ended with status {status}"

    def document(self, name: str) -> list[dict[str, Any]] | None:
        """Return the objects of a command that prints a JSON list, ``None`` when that is not what it did."""
        if not self.ended_well(name):
            return None
        try:
            found = json.loads("\n".join(self.lines.get(name, ())) or "[]")
        except (ValueError, RecursionError):
            return None
        # ip prints an empty object for a thing that a filter leaves out.
        return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else None

    def trial(self, name: str) -> Answer:
        """Return what came of an attempt to make something."""
        if name not in self.statuses:
            return Answer(Has.UNKNOWN, self.refusals.get("trials", "it was not tried"))
        status, said = self.statuses[name]
        if status == 0:
            return Answer(Has.YES)
        plain = said.lower()
        if any(sign in plain for sign in _UNKNOWN_TO_IP):
            return Answer(Has.UNKNOWN, f"this gateway's ip command cannot ask for it ({_bare(said)})")
        why = _bare(said) or f"status {status}"
        return Answer(Has.NO if any(sign in plain for sign in _LACKING) else Has.UNKNOWN, why)


def read_answers(text: str) -> Answers:
    """Return the script's answers; lines that are not of its form are passed over."""
    lines: dict[str, list[str]] = {}
    statuses: dict[str, tuple[int, str]] = {}
    refusals: dict[str, str] = {}
    for line in text.split("\n"):
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        name, rest = found["name"], found["rest"].strip()
        if found["sign"] == "|":
            lines.setdefault(name, []).append(rest)
        elif found["sign"] == "?":
            refusals[name] = rest
        else:
            status, _, said = rest.partition(" ")
            if re.fullmatch(r"\d{1,9}", status, re.ASCII):
                statuses[name] = (int(status), said)
    return Answers({name: tuple(found) for name, found in lines.items()}, statuses, refusals)


def whole(text: object, low: int = 0, high: int = 2**32) -> int | None:
    """Return a whole number (decimal or 0x...), ``None`` where there is none or it is out of bounds."""
    if isinstance(text, bool) or not isinstance(text, (int, str)):
        return None
    try:
        number = text if isinstance(text, int) else int(text[:20], 0)
    except ValueError:
        return None
    return number if low <= number < high else None


def words(lines: Iterable[str], count: int) -> Iterable[list[str]]:
    """Yield the lines that have at least ``count`` words, split so that the last one takes the rest."""
    for line in lines:
        parts = line.split(None, count - 1)
        if len(parts) == count:
            yield parts


def _bare(said: str) -> str:
    return re.sub(r"^(Error|RTNETLINK answers): ", "", said.strip()).rstrip(".")
