"""Routes into tunnels, and routes that keep traffic for a tunnel at home while no tunnel carries it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from netaddr import IPAddress, IPNetwork

from ipsecctl.desired.selectors import minimal
from ipsecctl.desired.state import (
    HOLDING_MTU,
    INTO_METRIC,
    FirewallRule,
    Interface,
    InterfaceKind,
    Route,
    RouteKind,
)
from ipsecctl.topology import HOLDING_INTERFACE, DataPath, End, Gateway

__all__ = ["InterfaceUse", "holding_interface", "holding_routes", "routes_into"]

_PRIVATE = tuple(
    IPNetwork(prefix)
    for prefix in ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
"""Where no peer across the Internet has its outer address: RFC 1918, RFC 6598, RFC 4193."""


@dataclass(frozen=True, slots=True)
class InterfaceUse:
    """A tunnel in route mode, its interface, and the far prefixes of its flows at one of its ends."""

    tunnel: str
    interface: str
    here: End
    far: tuple[IPNetwork, ...]


def routes_into(uses: Iterable[InterfaceUse]) -> tuple[Route, ...]:
    """Return the routes into the interfaces of one gateway, sorted by prefix and metric.

    ``uses`` are in the order of their tunnels' names: of several that lead to one prefix the first has the
    best metric. The source is the gateway's own inside address of the family, if the topology names one.
    """
    taken: dict[IPNetwork, int] = {}
    routes = []
    for use in uses:
        sources = {address.version: address for address in use.here.gateway.inside}
        wanted = use.far if use.here.routes is None else use.here.routes
        for prefix in sorted(set(wanted)):
            further = taken.get(prefix, 0)
            taken[prefix] = further + 1
            routes.append(
                Route(
                    prefix=prefix,
                    tunnel=use.tunnel,
                    kind=RouteKind.INTO,
                    interface=use.interface,
                    metric=INTO_METRIC + further,
                    source=sources.get(prefix.version),
                )
            )
    return tuple(sorted(routes, key=lambda route: (route.prefix, route.metric)))


def holding_routes(
    data_path: DataPath,
    peers: Iterable[Gateway],
    rules: Iterable[FirewallRule],
    into: Iterable[Route] = (),
    *,
    inside: Iterable[IPAddress] = (),
    mtu: int = 0,
) -> tuple[Route, ...]:
    """Return a route that leads nowhere for each remote prefix, sorted: what no tunnel carries stays here.

    On charon's own data path, and behind a route into an interface (``into``, of better metric), it is
    unreachable, so that traffic fails at once. In policy mode the kernel looks a packet's policy up only
    after the packet has found a route; there the route leads to ``HOLDING_INTERFACE``: with a policy the
    packet goes the way of its outer header, without one it ends there. So it does whether or not charon adds
    a route of its own, which it does not for an inner family that the WAN has not, nor for a gateway without
    an address in the local network. Such a route has the ``mtu`` (bytes, 0 for none) that charon's have, and
    as source the first of the ``inside`` addresses that the prefix's policies cover.

    What is led into an interface gets no narrower route than that: it would win whatever its metric. There
    the wider one is what a policy's packets find. A prefix that contains, or might contain, the outer address
    of a peer is left out: IKE must still reach it.
    """
    outer, all_known = _outer_addresses(peers)
    own = tuple(inside)
    held = {route.prefix: route.tunnel for route in reversed(tuple(into))}
    led = minimal(held)
    by_policy: list[IPNetwork] = []
    sources: dict[IPNetwork, IPAddress] = {}
    for rule in rules:
        if rule.interface:
            continue
        source = next((a for a in own if any(a in local for local in rule.local)), None)
        for prefix in rule.remote:
            if data_path is not DataPath.LIBIPSEC:
                by_policy.append(prefix)
                if source is not None:
                    sources.setdefault(prefix, source)
            if prefix not in held and not _overlaps_any(prefix, led, only_wider=True):
                held[prefix] = rule.tunnel
    apart = minimal(by_policy)
    return tuple(
        Route(prefix, tunnel, RouteKind.HOLDING, HOLDING_INTERFACE, source=sources.get(prefix), mtu=mtu)
        if _overlaps_any(prefix, apart)
        else Route(prefix, tunnel)
        for prefix, tunnel in sorted(held.items())
        if (all_known or _is_private(prefix)) and not _holds_any(prefix, outer)
    )


def holding_interface(routes: Iterable[Route]) -> Interface | None:
    """Return the interface that leads nowhere, if one of a gateway's routes leads to it.

    It bears the sources of these routes, as hosts: see ``Interface.addresses`` of tunnels.
    """
    here = [route for route in routes if route.interface == HOLDING_INTERFACE]
    if not here:
        return None
    sources = {IPNetwork(route.source) for route in here if route.source is not None}
    return Interface(
        HOLDING_INTERFACE, 0, HOLDING_MTU, tuple(sorted(sources)), tunnel="", kind=InterfaceKind.DUMMY
    )


def _overlaps_any(prefix: IPNetwork, others: tuple[IPNetwork, ...], *, only_wider: bool = False) -> bool:
    """Return whether a prefix has addresses in common with one of ``others``, sorted and apart.

    With ``only_wider``: whether it lies in one of them.
    """
    place = bisect_right(others, _start(prefix), key=_start)
    near = others[max(place - 1, 0) : place + 1]
    return any(prefix in other or (not only_wider and other in prefix) for other in near)


def _start(prefix: IPNetwork) -> tuple[int, int]:
    return prefix.version, prefix.first


def _outer_addresses(peers: Iterable[Gateway]) -> tuple[tuple[IPAddress, ...], bool]:
    """Return the peers' fixed outer addresses, sorted, and whether these are all that they can have."""
    found, all_known = set(), True
    for peer in peers:
        address = peer.reachable_at
        if isinstance(address, IPAddress):
            found.add(address)
        else:
            all_known = False
    return tuple(sorted(found)), all_known


def _is_private(prefix: IPNetwork) -> bool:
    return any(prefix in private for private in _PRIVATE)


def _holds_any(prefix: IPNetwork, addresses: tuple[IPAddress, ...]) -> bool:
    place = bisect_left(addresses, IPAddress(prefix.first, prefix.version))
    return place < len(addresses) and addresses[place] in prefix
