"""SAs that two ends of a tunnel are out of step with: which can go, and which carry and stay.

What both ends have is never ended for what only one of them has, nor for an IKE_SA that is empty: so it is
left by an attempt whose CHILD_SA could not be installed. Pure: the IKE_SAs of both ends in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ipsecctl.health import ChildSa, IkeSa

__all__ = ["Stale", "stale"]

_Key = tuple[str, int | None]
"""Of what one CHILD_SA is enough: a child, or a child on one CPU."""


@dataclass(frozen=True, slots=True)
class Stale:
    """What can go, by the unique ids at the calling end and at the far one."""

    ikes: frozenset[int] = frozenset()
    children: frozenset[int] = frozenset()
    far_ikes: frozenset[int] = frozenset()
    far_children: frozenset[int] = frozenset()


def stale(here: tuple[IkeSa, ...], far: tuple[IkeSa, ...] | None) -> Stale:
    """Return what can go of a tunnel's IKE_SAs at the calling end and at the far one, ``None`` if not seen.

    Of CHILD_SAs that both ends have, one of each child stays, the latest where there are several. Where there
    is none, everything at the calling end can go.
    """
    there = None if far is None else {(sa.spi_out, sa.spi_in) for sa in _children(far) if sa.carries}

    def works(child: ChildSa) -> bool:
        return child.carries and (there is None or (child.spi_in, child.spi_out) in there)

    def working(sa: IkeSa) -> frozenset[_Key]:
        return frozenset((child.name, child.cpu) for child in sa.children if works(child))

    kept: list[IkeSa] = []
    covered: set[_Key] = set()
    for sa in sorted(here, key=lambda sa: (len(working(sa)), sa.unique_id), reverse=True):
        if working(sa) - covered:
            kept.append(sa)
            covered |= working(sa)
    if not kept:
        return Stale(frozenset(sa.unique_id for sa in here))
    latest: dict[_Key, int] = {}
    for child in filter(works, _children(kept)):
        key = (child.name, child.cpu)
        latest[key] = max(child.unique_id, latest.get(key, 0))
    ours = {(child.spi_out, child.spi_in) for child in _children(here)}
    known = {_spis(sa) for sa in here}
    shared = [sa for sa in far or () if _spis(sa) in known]
    return Stale(
        frozenset(sa.unique_id for sa in here if sa not in kept),
        frozenset(
            child.unique_id
            for child in _children(kept)
            if child.carries and latest.get((child.name, child.cpu)) != child.unique_id
        ),
        frozenset(sa.unique_id for sa in far or () if sa not in shared),
        frozenset(
            child.unique_id
            for child in _children(shared)
            if child.carries and (child.spi_in, child.spi_out) not in ours
        ),
    )


def _children(sas: Iterable[IkeSa]) -> list[ChildSa]:
    return [child for sa in sas for child in sa.children]


def _spis(sa: IkeSa) -> tuple[str, str]:
    return sa.initiator_spi, sa.responder_spi
