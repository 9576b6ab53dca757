"""Routes into tunnels, and routes that keep traffic for a tunnel at home while no tunnel carries it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from netaddr import IPAddress, IPNetwork

from ipsecctl.desired.selectors import minimal
from ipsecctl.desired.state import INTO_METRIC, FirewallRule, Route, RouteKind
from ipsecctl.topology import DataPath, End, Gateway

__all__ = ["InterfaceUse", "holding_routes", "routes_into"]

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
) -> tuple[Route, ...]:
    """Return an unreachable route for each remote prefix, sorted: a tunnel that is down fails at once.

    Where charon carries ESP itself its routes (table 220, looked up before the main table) always exist while
    a tunnel is up. In route mode the route into the interface (``into``) has a better metric; what is held
    are the prefixes of these routes and no others, as a narrower one would win over them whatever its metric.
    With the kernel's data path in policy mode charon adds a route only if the gateway has an address in the
    local network; for any other gateway the packet must find its way through the main table to meet its IPsec
    policy at all, so an unreachable route would stop a tunnel that works. There the firewall alone does the
    holding; a prefix that such a tunnel shares with one in route mode is not held either.

    A prefix that contains, or might contain, the outer address of a peer is left out: IKE must still reach
    it.
    """
    outer, all_known = _outer_addresses(peers)
    held: dict[IPNetwork, str] = {}
    by_policy: list[IPNetwork] = []
    for route in into:
        held.setdefault(route.prefix, route.tunnel)
    for rule in rules:
        if data_path is DataPath.LIBIPSEC:
            for prefix in rule.remote:
                held.setdefault(prefix, rule.tunnel)
        elif not rule.interface:
            by_policy.extend(rule.remote)
    apart = minimal(by_policy)
    return tuple(
        Route(prefix, tunnel)
        for prefix, tunnel in sorted(held.items())
        if (all_known or _is_private(prefix))
        and not _holds_any(prefix, outer)
        and not _overlaps_any(prefix, apart)
    )


def _overlaps_any(prefix: IPNetwork, others: tuple[IPNetwork, ...]) -> bool:
    """Return whether a prefix has addresses in common with one of ``others``, sorted and apart."""
    place = bisect_right(others, _start(prefix), key=_start)
    return any(prefix in other or other in prefix for other in others[max(place - 1, 0) : place + 1])


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
