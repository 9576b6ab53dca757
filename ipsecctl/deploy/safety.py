"""How gateways stand before and after their plans: what the safety stop counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ipsecctl.errors import SafetyStop
from ipsecctl.gateway import Observed
from ipsecctl.plan import Standing, Stop, Wanted
from ipsecctl.topology import Topology

__all__ = ["refused", "standings"]


def standings(
    topology: Topology, targets: Mapping[str, Wanted], observed: Mapping[str, Observed]
) -> Iterator[Standing]:
    """Yield how each gateway that was observed stands: what was applied there, and what is to be.

    What an earlier apply had only begun to create there counts as if it had not been.
    """
    sites = {gateway.name: gateway.site for gateway in topology.gateways()}
    for name, target in targets.items():
        seen = observed[name]
        record = seen.facts.record
        yield Standing(
            name,
            sites[name],
            before=record.messages if record else {},
            after=target.connections,
            dead=_dead(seen, record.messages if record else {}),
        )


def _dead(seen: Observed, applied: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """Return the tunnels through which nothing passes as it is; one that has lost a part carries the rest."""
    lost: dict[str, set[str]] = {}
    for sa in seen.not_in_kernel:
        if sa.dead:
            lost.setdefault(sa.tunnel, set()).add(sa.child)
    return frozenset(
        name for name, children in lost.items() if children >= {*applied.get(name, {}).get("children", {})}
    )


def refused(stops: Iterable[Stop]) -> SafetyStop:
    """Return the error that stops an apply."""
    stops = tuple(stops)
    words = dict.fromkeys(f"--allow {word}" for stop in stops for word in stop.allow)
    return SafetyStop(
        f"the safety stop holds this plan back: {'; '.join(stop.summary for stop in stops)}",
        f"Nothing was done. If that is meant, say: {' '.join(words)}",
    )
