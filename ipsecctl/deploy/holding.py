"""Running tunnels that a plan would end for SAs that cannot come up: what keeps these, and who is left alone.

charon may end the old SAs by itself where the new ones fail (it authenticates anew, say), and what is broken
first would never come back. So such a tunnel stays as it is, in both charons and on its SAs, unless that is
allowed by its name; the next apply does it when what is in its way is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ipsecctl.gateway import Observed, Obstacle, addresses_of, no_way_out
from ipsecctl.health import parse_list_sas, runs_otherwise
from ipsecctl.plan import Disruption, GatewayPlan, Safety, StopKind, Wanted, unroutable

__all__ = ["doomed", "held", "left_alone"]

Doomed = Mapping[str, tuple[Obstacle, ...]]


def doomed(
    plans: Iterable[GatewayPlan], wanted: Mapping[str, Wanted], observed: Mapping[str, Observed]
) -> dict[str, tuple[Obstacle, ...]]:
    """Return the tunnels whose SAs are to be made anew, carry something now, and would not come up again.

    With each what keeps its new SAs from coming up, at any end that is seen.
    """
    names = {n for plan in plans for n, grade in plan.disturbed.items() if grade >= Disruption.REKEY}
    found = {
        name: tuple(sorted({o for end in wanted for o in _in_the_way(name, wanted[end], observed[end])}))
        for name in sorted(names)
    }
    return {name: obstacles for name, obstacles in found.items() if obstacles}


def _in_the_way(name: str, wanted: Wanted, observed: Observed) -> Iterator[Obstacle]:
    """Yield what keeps new SAs of a connection from coming up at one end, and harms none that runs there."""
    message = wanted.connections.get(name)
    if message is None or observed.charon_down is not None:
        return
    dead = {(sa.tunnel, sa.child) for sa in observed.not_in_kernel if sa.dead}
    runs = [
        (sa, child.name)
        for sa in parse_list_sas(observed.sas)
        if sa.name == name
        for child in sa.children
        if child.carries and (name, child.name) not in dead
    ]
    running = {child for _, child in runs}
    for child, obstacles in unroutable(wanted, observed, name).items():
        if child in running:
            yield from obstacles
    way_out = observed.facts.way_out
    if runs_otherwise([sa for sa, _ in runs], way_out):
        own, peers = (addresses_of(message.get(key, ())) for key in ("local_addrs", "remote_addrs"))
        yield from no_way_out(wanted.gateway, own, peers, way_out)


def held(doomed: Doomed, safety: Safety) -> frozenset[str]:
    """Return the ``doomed`` tunnels that are left alone: not those that are allowed to be disturbed."""
    if StopKind.DISTURB in safety.allowed:
        return frozenset()
    return frozenset(doomed.keys() - safety.allowed)


def left_alone(held: Iterable[str]) -> dict[str, str]:
    """Return by tunnel what is said of those that are ``held``, beside what is in their way."""
    return {
        name: f"left as it runs, as new SAs would not come up: --allow {name} tries it all the same"
        for name in held
    }
