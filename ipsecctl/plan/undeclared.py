"""What charon has of a connection of ours beside the children that are declared: traps, and CHILD_SAs.

Each passes traffic that the topology does not want: a trap calls for an SA as soon as a packet meets it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ipsecctl.gateway import Observed
from ipsecctl.plan.device import unroutable
from ipsecctl.plan.reasons import Drift
from ipsecctl.plan.wanted import Wanted

__all__ = ["Traps", "ended_reasons", "trap_reasons", "traps_of", "undeclared_sas"]

_ENDING = ("DELETING", "DELETED", "DESTROYING", "REKEYED")


@dataclass(frozen=True, slots=True)
class Traps:
    """What is to be done about the traps of a connection, by child: ``missing`` ones, and ``stray`` ones."""

    missing: tuple[str, ...] = ()
    stray: tuple[str, ...] = ()


def traps_of(wanted: Wanted, observed: Observed, name: str, there: frozenset[str]) -> Traps:
    """Return how the traps that are ``there`` of a connection differ from those that are declared.

    One that cannot be set, as its route cannot, is not missing. Of a connection that is not wanted all are
    stray.
    """
    message = wanted.connections.get(name, {})
    declared = _trapped(message)
    missing = declared - there
    if missing:
        missing -= unroutable(wanted, observed, name).keys()
    return Traps(tuple(sorted(missing)), tuple(sorted(there - declared)))


def _trapped(message: Mapping[str, Any]) -> frozenset[str]:
    children = message.get("children", {}).items()
    return frozenset(name for name, child in children if child.get("start_action") == "trap")


def trap_reasons(wanted: Wanted, observed: Observed, name: str, before: Mapping[str, Any]) -> tuple[str, ...]:
    """Return as reasons which traps of a connection charon has too many, or lacks, whatever is changed now.

    ``before`` is the connection as it was applied: what only a change takes away, or adds, is not said.
    """
    if observed.traps is None:
        return ()
    found = traps_of(wanted, observed, name, observed.traps.get(name, frozenset()))
    applied = _trapped(before)
    stray = [child for child in found.stray if child not in applied]
    missing = [child for child in found.missing if child in applied]
    reasons = [
        Drift(f"charon has a trap for {child}, which is not declared: it would call") for child in stray
    ]
    reasons += [Drift(f"the trap of {child} is not there: no packet would call for it") for child in missing]
    return tuple(reasons)


def ended_reasons(wanted: Wanted, observed: Observed, name: str) -> tuple[str, ...]:
    """Return as reasons which CHILD_SAs of a connection are ended first: see ``undeclared_sas``."""
    names = dict.fromkeys(child for child, _ in undeclared_sas(wanted, observed, name))
    return tuple(Drift(f"its CHILD_SA {child} is of no declared child: it is ended first") for child in names)


def undeclared_sas(wanted: Wanted, observed: Observed, name: str) -> tuple[tuple[str, str], ...]:
    """Return the CHILD_SAs of a connection that no apply has asked for: their children and unique ids.

    charon makes no SA of a declared child beside one that is the same but for its name, or that a stray trap
    has brought up. Of an apply that did not come to its end there may be those that are now declared.
    """
    record = observed.facts.record
    applied = record.messages.get(name, {}) if record else {}
    known = {*applied.get("children", {})}
    if not (applied and record and record.connections.get(name)):
        known |= wanted.connections.get(name, {}).get("children", {}).keys()
    return tuple(
        sorted((child, unique_id) for child, unique_id in _sas(observed, name) if child not in known)
    )


def _sas(observed: Observed, name: str) -> Iterator[tuple[str, str]]:
    for message in observed.sas:
        sa = message.get(name)
        for child in sa.get("child-sas", {}).values() if isinstance(sa, Mapping) else ():
            if child.get("state") not in _ENDING and "uniqueid" in child:
                yield str(child.get("name", "")), str(child["uniqueid"])
