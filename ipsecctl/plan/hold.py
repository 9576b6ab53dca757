"""Tunnels whose running SAs a plan would end for new ones that cannot come up: what the plan says of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from ipsecctl.gateway import Obstacle
from ipsecctl.plan.change import Change, Disruption, GatewayPlan, Hold, Kind, Part

__all__ = ["holding"]

_HELD = "held back: new SAs would not come up, and the running ones may end for them"
_ALLOWED = "new SAs will hardly come up, and the running ones may end for them"


def holding(
    plans: Iterable[GatewayPlan], doomed: Mapping[str, tuple[Obstacle, ...]], left: Collection[str]
) -> tuple[GatewayPlan, ...]:
    """Return plans that grade ``doomed`` tunnels as what becomes of them, and say why.

    Those of them that are ``left`` alone are held, with the causes. The others were allowed.
    """

    def judged(change: Change) -> Change:
        concerned = change.part is Part.CONNECTION and change.kind is not Kind.REMOVE and change.disruption
        if not concerned or change.name not in doomed:
            return change
        why = "; ".join(obstacle.what for obstacle in doomed[change.name])
        said = _HELD if change.name in left else f"{_ALLOWED}: {why}"
        grade = max(change.disruption, Disruption.CHILD_RESTART)
        return replace(change, reasons=(*change.reasons, said), disruption=grade)

    return tuple(
        replace(
            plan,
            changes=tuple(map(judged, plan.changes)),
            held=tuple(
                Hold(name, tuple(obstacle.cause for obstacle in doomed[name]))
                for name in sorted({*left} & plan.disturbed.keys())
            ),
        )
        for plan in plans
    )
