"""What was seen of gateways before an apply and keeps a tunnel from being right, or from coming up."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ipsecctl.deploy.prepare import Prepared
from ipsecctl.health import (
    Declared,
    astray_obstacles,
    device_gone_cause,
    lost_homes,
    start_up_causes,
    way_out_obstacles,
)
from ipsecctl.plan import barred, device_gone, start_up

__all__ = ["NO_OBSTACLES", "Obstacles", "doubts", "obstacles"]


@dataclass(frozen=True, slots=True)
class Obstacles:
    """Why a tunnel does not come up however long one waits, as causes; some may run on as it is.

    ``cut_off``: an end can send nothing to the other. ``barred``: an end cannot set the routes of SAs.
    ``astray``: the way from one end to the other begins at another interface than the one with its address,
    which may be meant: so a tunnel is waited for all the same, and this is why it does not come up if it does
    not.
    """

    cut_off: tuple[str, ...] = ()
    barred: tuple[str, ...] = ()
    astray: tuple[str, ...] = ()

    @property
    def causes(self) -> tuple[str, ...]:
        """Those that leave nothing to wait for."""
        return (*self.cut_off, *self.barred)


NO_OBSTACLES = Obstacles()


def obstacles(prepared: Prepared, declared: Iterable[Declared]) -> dict[str, Obstacles]:
    """Return by tunnel what is in its way, of those that something is."""
    held = {
        name: barred(prepared.wanted[name], seen)
        for name, seen in prepared.observed.items()
        if name in prepared.wanted
    }
    found = {}
    for tunnel in declared:
        ends = [name for name in (tunnel.left.name, tunnel.right.name) if name in prepared.observed]
        lost = (
            o for end in ends for o in way_out_obstacles(tunnel, end, prepared.observed[end].facts.way_out)
        )
        kept = (o for end in ends for o in held.get(end, {}).get(tunnel.name, ()))
        by = (o for end in ends for o in astray_obstacles(tunnel, end, prepared.observed[end].facts.way_out))
        found[tunnel.name] = Obstacles(*(tuple(o.cause for o in each) for each in (lost, kept, by)))
        if tunnel.name in prepared.held:  # it runs otherwise
            found[tunnel.name] = Obstacles(barred=_causes(prepared, tunnel.name))
    return {name: all_ for name, all_ in found.items() if all_ != NO_OBSTACLES}


def doubts(
    prepared: Prepared, declared: Iterable[Declared], restarted: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Return by tunnel why it is not proven right: charon at an end cannot set routes that are missing, or
    has not read options that it needs, or an end has no way to its own networks, or it is held.

    One that was ``restarted`` has read all.
    """
    waiting = {name: seen for name, seen in prepared.observed.items() if name not in restarted}
    pending = {
        name: start_up(prepared.wanted[name], seen).pending(seen.facts.charon)
        for name, seen in waiting.items()
    }
    gone = {
        name: device_gone_cause(name, seen.facts.restart)
        for name, seen in waiting.items()
        if device_gone(prepared.wanted[name], seen)
    }

    held = {name: barred(prepared.wanted[name], seen, idle=False) for name, seen in waiting.items()}

    def causes(tunnel: Declared) -> Iterator[str]:
        ends = (tunnel.left.name, tunnel.right.name)
        if tunnel.name in prepared.held:
            yield from _causes(prepared, tunnel.name)
        yield from (o.cause for end in ends for o in held.get(end, {}).get(tunnel.name, ()))
        yield from (gone[end] for end in ends if end in gone)
        for end in ends:
            if end in prepared.observed and end in tunnel.ways:
                yield from lost_homes(end, tunnel.ways[end], prepared.observed[end].facts.ways)
        for end in ends:
            if pending.get(end):
                restart = prepared.observed[end].facts.restart
                yield from start_up_causes(end, tunnel.mtus.get(end), pending[end], restart)

    found: Mapping[str, tuple[str, ...]] = {
        tunnel.name: tuple(dict.fromkeys(causes(tunnel))) for tunnel in declared
    }
    return {name: why for name, why in found.items() if why}


def _causes(prepared: Prepared, tunnel: str) -> tuple[str, ...]:
    """Return what keeps new SAs of a tunnel that is held from coming up."""
    return tuple(obstacle.cause for obstacle in prepared.doomed[tunnel])
