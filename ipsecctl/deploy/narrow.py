"""CHILD_SAs that lack a part of their selectors, though both ends are ours: how that is kept off, and mended.

An end that calls before the far end has its new configuration is answered from the old one, and the selectors
are narrowed to what both have (RFC 7296 section 2.9). Traps call by themselves, as soon as a packet comes; so
a connection that calls is loaded only when the far end has its own. Where an SA is narrow all the same, time
alone does not widen it: charon hands its selectors on to those that replace it. And the end that called says
"existing duplicate", as that SA has the configuration that is loaded there. At the end that was called it has
an earlier one: that end makes the new SA, beside the narrow one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ipsecctl.deploy.move import Moving
from ipsecctl.deploy.prepare import Prepared
from ipsecctl.health import Declared, EndState, EndView, narrower
from ipsecctl.plan import End, GatewayPlan, Kind, Move, Part, Step

__all__ = ["callers_that_wait", "mending", "narrow_children"]


def callers_that_wait(
    prepared: Prepared, tunnels: Iterable[Declared], calling: Mapping[str, str], moving: Collection[str]
) -> dict[str, frozenset[str]]:
    """Return by gateway the connections that call and wait until the far end has loaded its own.

    Those of tunnels that are moved wait by themselves (``move.held``). Where the far end has none at all yet,
    nothing can be narrowed, and nobody waits.
    """
    plans = {plan.gateway: plan for plan in prepared.plans}
    loaded = {n: _names(plan, Kind.CREATE, Kind.CHANGE) for n, plan in plans.items()}
    replaced = {n: _names(plan, Kind.CHANGE) for n, plan in plans.items()}
    found: dict[str, set[str]] = {}
    for tunnel in tunnels:
        caller = calling.get(tunnel.name)
        called = _far_end(tunnel, caller)
        if tunnel.name in moving or caller not in plans or called not in plans:
            continue
        if tunnel.name in loaded[caller] and tunnel.name in replaced[called]:
            found.setdefault(caller, set()).add(tunnel.name)
    return {gateway: frozenset(names) for gateway, names in found.items()}


def _names(plan: GatewayPlan, *kinds: Kind) -> frozenset[str]:
    return frozenset(change.name for change in plan.of(Part.CONNECTION, *kinds))


def narrow_children(tunnel: Declared, ends: Iterable[EndView]) -> tuple[str, ...]:
    """Return the children of a tunnel whose CHILD_SAs carry less than declared, and nothing else, at all the
    ends that are seen; sorted."""
    seen = [end for end in ends if end.state is EndState.SEEN]
    return tuple(
        sorted(name for name in tunnel.children if seen and all(_narrow(tunnel, end, name) for end in seen))
    )


def mending(tunnel: Declared, ends: Iterable[EndView], caller: str | None) -> Moving | None:
    """Return the move that makes narrow CHILD_SAs of a tunnel anew, ``None`` where there are none, or where
    an end is not ours to look at. ``caller`` is the gateway that calls: it ends the narrow ones."""
    ends = tuple(ends)
    called = _far_end(tunnel, caller)
    names = narrow_children(tunnel, ends)
    if caller is None or called is None or not names or any(end.state is not EndState.SEEN for end in ends):
        return None
    both = {end.gateway: End({}, {}) for end in ends}
    return Moving(tunnel, called, caller, Move((Step.INITIATE,), names), both)


def _narrow(tunnel: Declared, end: EndView, name: str) -> bool:
    declared = tunnel.traffic.get((end.gateway, name))
    sas = [child for sa in end.sas for child in sa.children if child.name == name and child.installed]
    return declared is not None and bool(sas) and all(narrower(declared, sa) for sa in sas)


def _far_end(tunnel: Declared, caller: str | None) -> str | None:
    return next((end.name for end in (tunnel.left, tunnel.right) if caller and end.name != caller), None)
