"""Tunnels of which only one end is changed now: the other end is not in the limit, or in a later batch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from ipsecctl.plan.change import Change, Disruption, GatewayPlan, Kind, Note, Part
from ipsecctl.plan.wanted import tunnel_of

__all__ = ["calm", "half_notes", "halves", "needs", "touched"]


def touched(plan: GatewayPlan) -> frozenset[str]:
    """Return the tunnels whose connection, pre-shared key or PPK a plan changes."""
    keys = {tunnel_of(c.name) for c in plan.of(Part.SHARED)}
    return frozenset(keys | {c.name for c in plan.of(Part.CONNECTION)})


def needs(plans: Iterable[GatewayPlan]) -> dict[str, frozenset[str]]:
    """Return by tunnel the gateways that have something to change for it."""
    found: dict[str, set[str]] = {}
    for plan in plans:
        for name in touched(plan):
            found.setdefault(name, set()).add(plan.gateway)
    return {name: frozenset(gateways) for name, gateways in sorted(found.items())}


def halves(plans: Iterable[GatewayPlan], limit: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return by tunnel the gateways that would have to be changed for it and are not in the limit."""
    left = {name: tuple(sorted(gateways - {*limit})) for name, gateways in needs(plans).items()}
    return {name: gateways for name, gateways in left.items() if gateways}


def calm(plans: Iterable[GatewayPlan], half: Collection[str]) -> tuple[GatewayPlan, ...]:
    """Return plans as they are to be shown and judged: a tunnel changed at one end keeps its SAs."""

    def calmed(change: Change) -> Change:
        stays = change.part is Part.CONNECTION and change.kind is Kind.CHANGE and change.name in half
        return replace(change, disruption=Disruption.NONE) if stays else change

    return tuple(replace(plan, changes=tuple(map(calmed, plan.changes))) for plan in plans)


def half_notes(plan: GatewayPlan, half: Mapping[str, Iterable[str]]) -> Iterator[Note]:
    """Yield what becomes of the tunnels that a plan changes at this end only."""
    for name in sorted(touched(plan) & half.keys()):
        others = ", ".join(half[name])
        yield Note(
            f"tunnel {name}: {others} is not in --limit and stays as it is; {_meanwhile(plan, name)}",
            "The next apply to both ends completes it. Until then charon on this end should not be restarted:"
            " it would come up with the new configuration alone.",
        )


def _meanwhile(plan: GatewayPlan, name: str) -> str:
    kinds = {c.kind for c in plan.of(Part.CONNECTION) if c.name == name}
    if Kind.REMOVE in kinds:
        return "it is removed at this end all the same"
    if Kind.CREATE in kinds:
        return "it cannot come up yet"
    if plan.disturbed.get(name, Disruption.REKEY) is Disruption.REKEY:
        return "its SAs stay, and this end goes on accepting the old configuration"
    return "its SAs stay, and charon on this end keeps the old configuration"
