"""In which order a fleet is changed: which gateways in which batch. Pure: names in, batches out.

A tunnel has two ends, and moves when both are changed. So a gateway with more tunnels than the far end of one
of them (a hub) comes along with the first batch that has such a far end; where all have as many (a mesh), a
tunnel moves in the batch of its second end, and runs on as it was until then.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ipsecctl.errors import IpsecctlError

__all__ = ["Batch", "Share", "batches", "ends_of", "parse_share"]

_SHARE = re.compile(r"([0-9]{1,6})\s*(%?)")


@dataclass(frozen=True, slots=True)
class Share:
    """A number of gateways, or (``of_all``) a percentage of them."""

    value: int
    of_all: bool = False

    def of(self, total: int) -> int:
        """Return how many of ``total`` gateways that is; a part of a gateway counts as one."""
        return -(-self.value * total // 100) if self.of_all else self.value

    def __str__(self) -> str:
        return f"{self.value}%" if self.of_all else str(self.value)


def parse_share(text: str, *, least: int = 1) -> Share:
    """Return what ``5`` or ``20%`` says. Raises ``IpsecctlError`` for any other, and below ``least``."""
    match = _SHARE.fullmatch(text.strip())
    if match is None or int(match[1]) < least or (match[2] and int(match[1]) > 100):
        raise IpsecctlError(
            f"'{text}' is no number of gateways",
            f"Say how many, from {least} on, as in 5; or how many of a hundred, from {least}% to 100%.",
        )
    return Share(int(match[1]), bool(match[2]))


@dataclass(frozen=True, slots=True)
class Batch:
    """Gateways that are changed side by side, sorted; batches are numbered from 1.

    ``along`` are those of them that come along as the far end of others' tunnels.
    """

    number: int
    gateways: tuple[str, ...]
    canary: bool = False
    along: tuple[str, ...] = ()


def ends_of(pairs: Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
    """Return by gateway the far ends of its tunnels; ``pairs`` are the two ends of each tunnel."""
    found: dict[str, set[str]] = {}
    for left, right in pairs:
        found.setdefault(left, set()).add(right)
        found.setdefault(right, set()).add(left)
    return {name: frozenset(far) for name, far in found.items()}


def batches(
    gateways: Collection[str],
    pairs: Iterable[tuple[str, str]] = (),
    *,
    canary: Collection[str] = (),
    size: Share | None = None,
) -> tuple[Batch, ...]:
    """Return the batches in which ``gateways`` are changed: each of them in exactly one.

    ``pairs`` are the ends of all tunnels. ``canary`` come first, by themselves but for their hubs. ``size``
    is of a batch, without those that come along; in percent it counts all ``gateways``. Without it all that
    are not canaries are one batch.
    """
    todo, far = frozenset(gateways), ends_of(pairs)
    first = sorted(todo & {*canary})
    hubs = _hubs(todo - {*first}, todo, far)
    rest = sorted(todo - {*first} - hubs.keys())
    step = max(1, size.of(len(todo)) if size else len(rest))
    picked = [first] if first else []
    picked += [rest[at : at + step] for at in range(0, len(rest), step)]
    turn = {name: number for number, names in enumerate(picked) for name in names}
    for hub, followed in hubs.items():  # those with few tunnels first, so each of ``followed`` has its turn
        turn[hub] = min(turn[name] for name in followed)
    return tuple(
        Batch(
            number + 1,
            tuple(sorted(name for name, when in turn.items() if when == number)),
            canary=bool(first) and number == 0,
            along=tuple(sorted(name for name in hubs if turn[name] == number)),
        )
        for number in range(len(picked))
    )


def _hubs(
    candidates: Iterable[str], todo: Collection[str], far: Mapping[str, frozenset[str]]
) -> dict[str, tuple[str, ...]]:
    """Return those that come along, with those that they follow: far ends that have fewer tunnels.

    Those with few tunnels come first.
    """

    def tunnels(name: str) -> int:
        return len(far.get(name, ()))

    found = {}
    for name in sorted(candidates, key=lambda name: (tunnels(name), name)):
        followed = tuple(n for n in sorted(far.get(name, ())) if n in todo and tunnels(n) < tunnels(name))
        if followed:
            found[name] = followed
    return found
