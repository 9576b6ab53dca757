"""Routes into tunnels, and routes that keep traffic for a tunnel at home while no tunnel carries it.

The latter stand behind all others in the main table, for what the gateway itself sends. In policy mode on the
kernel's data path forwarded packets meet them earlier, in a table of ours that is looked up before charon's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from netaddr import IPAddress, IPNetwork

from ipsecctl.desired.rules import HOLDING_TABLE, Rule
from ipsecctl.desired.spans import Span, last_address, lies_in, overlaps, span_of, widest
from ipsecctl.desired.state import (
    HOLDING_METRIC,
    HOLDING_MTU,
    INTO_METRIC,
    FirewallRule,
    Interface,
    InterfaceKind,
    Route,
    RouteKind,
)
from ipsecctl.topology import HOLDING_INTERFACE, DataPath, End, Gateway

__all__ = [
    "InterfaceUse",
    "forwarding_routes",
    "forwarding_rules",
    "holding_interface",
    "holding_routes",
    "routes_into",
]

_NONE: Mapping[str, int] = MappingProxyType({})
_PRIVATE = tuple(
    span_of(IPNetwork(prefix))
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
    mtus: Mapping[str, int] = _NONE,
) -> tuple[Route, ...]:
    """Return a route that leads nowhere for each remote prefix, sorted: what no tunnel carries stays here.

    On charon's own data path, and behind a route into an interface (``into``, of better metric), it is
    unreachable, so that traffic fails at once. In policy mode the kernel looks a packet's policy up only
    after the packet has found a route; there the route leads to ``HOLDING_INTERFACE``: with a policy the
    packet goes the way of its outer header, without one it ends there. So it does whether or not charon adds
    a route of its own, which it does not for an inner family that the WAN has not, nor for a gateway without
    an address in the local network. Such a route has the smallest MTU (``mtus``, bytes by tunnel) of the
    tunnels that have its prefix, and as source the first of the ``inside`` addresses that the prefix's
    policies cover.

    What is led into an interface gets no narrower route than that: it would win whatever its metric. There
    the wider one is what a policy's packets find. A prefix that contains, or might contain, the outer address
    of a peer is left out: IKE must still reach it.
    """
    outer, all_known = _outer_addresses(peers)
    own = tuple(inside)
    kernel = data_path is not DataPath.LIBIPSEC
    held = {span_of(route.prefix): (route.prefix, route.tunnel) for route in reversed(tuple(into))}
    led = widest(held)
    sources: dict[Span, IPAddress] = {}
    mtu_of: dict[Span, int] = {}
    for rule in rules:
        if rule.interface:
            continue
        source = next((a for a in own if any(a in local for local in rule.local)), None)
        mtu = mtus.get(rule.tunnel, 0)
        for prefix in rule.remote:
            span = span_of(prefix)
            if source is not None:
                sources.setdefault(span, source)
            mtu_of[span] = min(mtu, mtu_of.get(span, mtu))
            if span not in held and not (led and lies_in(span, led)):
                held[span] = prefix, rule.tunnel
    by_policy = widest(mtu_of) if led else ()
    smallest = min(mtu_of.values(), default=0)
    routes = []
    for span, (prefix, tunnel) in sorted(held.items()):
        if not (all_known or lies_in(span, _PRIVATE)) or _holds_any(span, outer):
            continue
        if kernel and (span in mtu_of or overlaps(span, by_policy)):
            # Behind a route into an interface is what a narrower policy may need.
            mtu, source = mtu_of.get(span, smallest), sources.get(span)
            where = (RouteKind.HOLDING, HOLDING_INTERFACE, HOLDING_METRIC)
            routes.append(Route(prefix, tunnel, *where, source, mtu))
        else:
            routes.append(Route(prefix, tunnel))
    return tuple(routes)


def forwarding_routes(
    holding: Iterable[Route], led: Iterable[IPNetwork] = (), connected: Iterable[IPNetwork] = ()
) -> tuple[Route, ...]:
    """Return the routes of our own table, sorted: where forwarded packets are held in policy mode.

    ``holding`` are those of the main table; the ones to ``HOLDING_INTERFACE`` stand in ours, too, but for
    prefixes that are ``led`` into interfaces. Our table comes before charon's and the main one, so what of
    these must be found all the same is passed on where it lies in a prefix that is held: prefixes that are
    led, and networks that the gateway is ``connected`` to.
    """
    held = {span_of(route.prefix): route for route in holding if route.interface}
    if not held:
        return ()
    apart = {span_of(prefix): prefix for prefix in led}
    held = {span: route for span, route in held.items() if span not in apart} if apart else held
    apart |= {span: prefix for prefix in connected if (span := span_of(prefix)) not in held}
    around = widest(held) if apart else ()
    routes = {
        span: Route(
            r.prefix, r.tunnel, RouteKind.HOLDING, r.interface, metric=0, mtu=r.mtu, table=HOLDING_TABLE
        )
        for span, r in held.items()
    }
    for span, prefix in apart.items():
        if lies_in(span, around):
            routes[span] = Route(prefix.cidr, "", RouteKind.PASSED_ON, metric=0, table=HOLDING_TABLE)
    return tuple(route for _, route in sorted(routes.items())) if apart else tuple(routes.values())


def forwarding_rules(routes: Iterable[Route]) -> tuple[Rule, ...]:
    """Return the rules by which packets find the routes of our own table, IPv4 first."""
    families = {route.prefix.version for route in routes if route.table == HOLDING_TABLE}
    return tuple(Rule(family) for family in sorted(families))


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


def _outer_addresses(peers: Iterable[Gateway]) -> tuple[tuple[tuple[int, int], ...], bool]:
    """Return the peers' fixed outer addresses, sorted, and whether these are all that they can have.

    They are told as numbers: version and address.
    """
    found, all_known = set(), True
    for peer in peers:
        address = peer.reachable_at
        if isinstance(address, IPAddress):
            found.add((address.version, address.value))
        else:
            all_known = False
    return tuple(sorted(found)), all_known


def _holds_any(span: Span, addresses: tuple[tuple[int, int], ...]) -> bool:
    version, first, _ = span
    place = bisect_left(addresses, (version, first))
    return place < len(addresses) and addresses[place] <= (version, last_address(span))
