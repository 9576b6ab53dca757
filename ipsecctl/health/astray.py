"""A gateway whose route to its peer leads out by another interface than the one with its own address."""

from __future__ import annotations

from ipsecctl.gateway import Obstacle, WayOut, addresses_of, led_astray
from ipsecctl.health.tunnel import Declared

__all__ = ["astray_obstacles"]


def astray_obstacles(tunnel: Declared, gateway: str, seen: WayOut) -> tuple[Obstacle, ...]:
    """Return by which interface one end sends to the other where that is not the one of its own address."""
    here, far = (tunnel.left, tunnel.right) if tunnel.left.name == gateway else (tunnel.right, tunnel.left)
    return led_astray(gateway, addresses_of([here.address]), addresses_of([far.reachable_at]), seen)
