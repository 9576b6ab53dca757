"""A gateway that can send nothing to its peer: its address is gone from its interfaces, or its route."""

from __future__ import annotations

from collections.abc import Iterable

from ipsecctl.gateway import Obstacle, WayOut, addresses_of, no_way_out
from ipsecctl.health.sa import IkeSa
from ipsecctl.health.tunnel import Declared, EndView

__all__ = ["nothing_leaves", "runs_otherwise", "way_out_obstacles"]


def way_out_obstacles(tunnel: Declared, gateway: str, seen: WayOut) -> tuple[Obstacle, ...]:
    """Return what keeps one end of a tunnel from sending to the other, of what was ``seen`` there.

    Addresses that are not fixed (dynamic ones, names) are not known, and so nothing is lost of them.
    """
    here, far = (tunnel.left, tunnel.right) if tunnel.left.name == gateway else (tunnel.right, tunnel.left)
    return no_way_out(gateway, addresses_of([here.address]), addresses_of([far.reachable_at]), seen)


def runs_otherwise(sas: Iterable[IkeSa], seen: WayOut) -> bool:
    """Whether one of these carries between addresses that are all there, as before a change of them."""
    without = seen.no_address | seen.no_route.keys()
    return any(
        not without & {*addresses_of((sa.local_host, sa.remote_host))} and any(c.carries for c in sa.children)
        for sa in sas
    )


def nothing_leaves(tunnel: Declared, end: EndView) -> bool:
    """Whether an end can send nothing to the other: what is declared is missing, and no SA runs otherwise."""
    lost = way_out_obstacles(tunnel, end.gateway, end.way_out)
    return bool(lost) and not runs_otherwise(end.sas, end.way_out)
