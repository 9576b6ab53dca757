"""Running tunnels that a plan would end for SAs that cannot come up: what keeps these, and who is left alone.

charon may end the old SAs by itself where the new ones fail (it authenticates anew, say), and what is broken
first would never come back. So such a tunnel stays as it is, in both charons and on its SAs, unless that is
allowed by its name; the next apply does it when what is in its way is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ipsecctl.gateway import Observed, Obstacle, addresses_of, led_astray, no_way_out
from ipsecctl.health import IkeSa, parse_list_sas, runs_otherwise
from ipsecctl.plan import Disruption, GatewayPlan, Safety, StopKind, Wanted, unroutable

__all__ = ["NOT_COMING_UP", "doomed", "held", "left_alone"]

Doomed = Mapping[str, tuple[Obstacle, ...]]

NOT_COMING_UP = "new SAs would not come up"

_A_MOMENT_S = 10
"""How long ago something may have arrived and still show that the way to there is right."""


def doomed(
    plans: Iterable[GatewayPlan], wanted: Mapping[str, Wanted], observed: Mapping[str, Observed]
) -> dict[str, tuple[Obstacle, ...]]:
    """Return the tunnels whose SAs are to be made anew, carry something now, and would not come up again.

    With each what keeps its new SAs from coming up, at any end that is seen.
    """
    names = {n for plan in plans for n, grade in plan.disturbed.items() if grade >= Disruption.REKEY}
    found: dict[str, set[Obstacle]] = {name: set() for name in sorted(names)}
    running = {end: _running(observed[end]) for end in wanted} if names else {}
    for end, sas in running.items():
        for name in names & wanted[end].connections.keys() & sas.keys():
            found[name].update(_in_the_way(name, wanted[end], observed[end], sas[name]))
            arrives = any(_hears(running[other].get(name, ())) for other in running if other != end)
            found[name].update(_astray(name, wanted[end], observed[end], sas[name], arrives=arrives))
    return {name: tuple(sorted(obstacles)) for name, obstacles in found.items() if obstacles}


def _running(observed: Observed) -> dict[str, list[IkeSa]]:
    """Return by connection the IKE_SAs that carry something, with the CHILD_SAs of them that do."""
    dead = {(sa.tunnel, sa.child) for sa in observed.not_in_kernel if sa.dead}
    found: dict[str, list[IkeSa]] = {}
    for sa in parse_list_sas(observed.sas) if observed.charon_down is None else ():
        if children := tuple(c for c in sa.children if c.carries and (sa.name, c.name) not in dead):
            found.setdefault(sa.name, []).append(replace(sa, children=children))
    return found


def _in_the_way(name: str, wanted: Wanted, observed: Observed, running: list[IkeSa]) -> Iterator[Obstacle]:
    """Yield what keeps new SAs of a connection from coming up at one end, and harms none that runs there."""
    carrying = {child.name for sa in running for child in sa.children}
    for child, obstacles in unroutable(wanted, observed, name).items():
        if child in carrying:
            yield from obstacles
    way_out = observed.facts.way_out
    if runs_otherwise(running, way_out):
        message = wanted.connections[name]
        own, peers = (addresses_of(message.get(key, ())) for key in ("local_addrs", "remote_addrs"))
        yield from no_way_out(wanted.gateway, own, peers, way_out)


def _hears(sas: Iterable[IkeSa]) -> bool:
    """Whether one of these has received something a moment ago."""
    return any(c.heard_s is not None and c.heard_s <= _A_MOMENT_S for sa in sas for c in sa.children)


def _astray(
    name: str, wanted: Wanted, observed: Observed, running: list[IkeSa], *, arrives: bool
) -> tuple[Obstacle, ...]:
    """Return which of a connection's peers an end sends to by another interface than that of its address.

    That may be meant: so it is where what this end sends to them ``arrives``.
    """
    message = wanted.connections[name]
    own, peers = ({*addresses_of(message.get(key, ()))} for key in ("local_addrs", "remote_addrs"))
    if arrives:
        peers -= {*addresses_of(sa.remote_host for sa in running)}
    return led_astray(wanted.gateway, own, peers, observed.facts.way_out)


def held(doomed: Doomed, safety: Safety) -> frozenset[str]:
    """Return the ``doomed`` tunnels that are left alone: not those that are allowed to be disturbed."""
    if StopKind.DISTURB in safety.allowed:
        return frozenset()
    return frozenset(doomed.keys() - safety.allowed)


def left_alone(held: Iterable[str]) -> dict[str, str]:
    """Return by tunnel why those that are ``held`` are left as they run, beside what is in their way."""
    return dict.fromkeys(held, NOT_COMING_UP)
