"""charon's own device at one end of a tunnel: what keeps packets from entering it, and how to mend that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from netaddr import IPNetwork

from ipsecctl.desired import Version
from ipsecctl.gateway import CHARONS_TABLE, DEVICE, KernelView, NotInKernel, Obstacle, Pair, bars

__all__ = ["OwnDevice", "device_causes", "device_gone_cause", "routes_cause", "without_barred"]


@dataclass(frozen=True, slots=True)
class OwnDevice:
    """What a tunnel needs of charon's device at one end: ``far`` are the networks behind the other end.

    ``trapped`` has by child the far networks that lead into it even without an SA, ``pairs`` between which
    networks each carries traffic.
    """

    far: tuple[IPNetwork, ...] = ()
    trapped: tuple[tuple[str, tuple[IPNetwork, ...]], ...] = ()
    pairs: tuple[tuple[str, tuple[Pair, ...]], ...] = ()

    def barred(
        self, gateway: str, seen: KernelView, version: Version | None
    ) -> dict[str, tuple[Obstacle, ...]]:
        """Return by child what keeps its routes from being set, of those that something does."""
        found = {child: bars(gateway, seen.device, version, pairs) for child, pairs in self.pairs}
        return {child: obstacles for child, obstacles in found.items() if obstacles}


def device_causes(
    gateway: str,
    needs: OwnDevice,
    seen: KernelView,
    idle: Iterable[str],
    restart: str,
    version: Version | None = None,
    missing: Iterable[NotInKernel] = (),
) -> Iterator[str]:
    """Yield what is wrong with the device at one end, whether or not there are SAs.

    ``seen`` is what concerns this data path, ``idle`` are the children that have no SA there, ``restart``
    says how charon is restarted. ``version`` is charon's, ``missing`` what the kernel lacks of its SAs.
    """
    device = seen.device
    if device is None:
        return
    if device.lacks:
        yield _down(gateway) if device.there else device_gone_cause(gateway, restart)
        return
    for family in sorted(device.unruled & {prefix.version for prefix in needs.far}):
        rule = f"{CHARONS_TABLE}: from all lookup {device.table(family)}"
        what = f"the rule by which IPv{family} packets find charon's routes is not there ({rule})"
        yield f"{gateway}: {what}, so they do not enter the tunnel: apply the topology"
    idle, routes = frozenset(idle), seen.routes
    barred = needs.barred(gateway, seen, version)
    concerned = (idle | {sa.child for sa in missing if sa.routes}) & barred.keys()
    yield from dict.fromkeys(bar.cause for child in sorted(concerned) for bar in barred[child])
    idle -= concerned
    if routes is not None:
        lost = [
            str(prefix)
            for child, prefixes in needs.trapped
            for prefix in prefixes
            if child in idle and not any(prefix in route for route in routes)
        ]
        if lost:
            yield routes_cause(gateway, lost)


def without_barred(
    gateway: str, needs: OwnDevice, seen: KernelView, version: Version | None, missing: Iterable[NotInKernel]
) -> tuple[NotInKernel, ...]:
    """Return what the kernel lacks of SAs without the routes that no apply can bring back."""
    barred = needs.barred(gateway, seen, version)
    return tuple(replace(sa, routes=()) if sa.child in barred else sa for sa in missing)


def _down(gateway: str) -> str:
    what = f"charon's device {DEVICE} is down, and nothing passes through it"
    return f"{gateway}: {what}: ip link set {DEVICE} up, or apply the topology"


def device_gone_cause(gateway: str, restart: str) -> str:
    """Return the cause that only a start of charon can mend, and how that is done."""
    how = f": {restart}" if restart else ""
    return (
        f"{gateway}: charon's device {DEVICE} is gone, and nothing passes: apply the topology, which "
        f"restarts charon where only ipsecctl's connections are in it, or restart it by hand{how}"
    )


def routes_cause(gateway: str, prefixes: Iterable[str]) -> str:
    """Return that charon's routes into its device are not there."""
    listed = ", ".join(dict.fromkeys(prefixes))
    return (
        f"{gateway}: charon's routes through {DEVICE} are not there ({listed}): apply the topology, which "
        "makes the SAs anew"
    )
