"""What belongs into tunnels that end at another gateway of the same site, and must not leave at this one.

A host sends to its own default gateway, whichever gateway has the tunnel. So each gateway of a site holds
back what the tunnels of the others carry, unless it passes it on inside the site.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from netaddr import IPAddress, IPNetwork

from ipsecctl.desired.routes import holding_routes
from ipsecctl.desired.selectors import minimal
from ipsecctl.desired.state import Elsewhere, FirewallRule, HeldPair, Route
from ipsecctl.topology import DataPath, Gateway, Site

__all__ = ["carried_elsewhere", "elsewhere_routes"]


def carried_elsewhere(site: Site, rules: Mapping[str, Sequence[FirewallRule]]) -> dict[str, Elsewhere]:
    """Return what each managed gateway of a site holds back for the others, by gateway.

    ``rules`` are, by gateway, those of all tunnels that end there. Pairs that a gateway carries itself are
    left out, and gateways that hold nothing.
    """
    found = {}
    for gateway in site.gateways:
        if not gateway.managed:
            continue
        own = {pair for rule in rules.get(gateway.name, ()) for pair in _pairs(rule)}
        others = [rule for g in site.gateways if g is not gateway for rule in rules.get(g.name, ())]
        pairs = {pair for rule in others for pair in _without(rule, own)}
        if pairs:
            found[gateway.name] = Elsewhere(tuple(sorted(pairs)), _next_hops(site, gateway))
    return found


def elsewhere_routes(
    held: Elsewhere, own: Iterable[FirewallRule], routes: Iterable[Route], peers: Iterable[Gateway]
) -> tuple[Route, ...]:
    """Return routes that lead nowhere for what is carried elsewhere, sorted by prefix.

    They stand in the main table, behind any other route to the same prefix. Where this gateway has tunnels
    (``own``) or ``routes`` to the same network, or to one around it, there is none: it would win over a wider
    one. ``peers`` are those of all gateways of the site: what may hold their addresses is left out.
    """
    if not held.pairs:
        return ()
    led = {prefix for rule in own for prefix in rule.remote} | {route.prefix for route in routes}
    around = minimal(led)
    rules = []
    for pair in held.pairs:
        remote = tuple(prefix for prefix in pair.remote if not _lies_in(prefix, around))
        rules.append(FirewallRule(pair.tunnel, pair.family, pair.local, remote, mss=0))
    # Never to the interface that leads nowhere: there is no policy that the packets could find behind it.
    return holding_routes(DataPath.LIBIPSEC, peers, rules)


def _pairs(rule: FirewallRule) -> Iterator[tuple[IPNetwork, IPNetwork]]:
    return ((local, remote) for local in rule.local for remote in rule.remote)


def _without(rule: FirewallRule, own: set[tuple[IPNetwork, IPNetwork]]) -> Iterator[HeldPair]:
    """Yield what of a rule is not in ``own``."""
    whole = HeldPair(rule.tunnel, rule.family, rule.local, rule.remote)
    if own.isdisjoint(_pairs(rule)):
        yield whole
        return
    for local in rule.local:
        rest = tuple(remote for remote in rule.remote if (local, remote) not in own)
        if rest:
            yield replace(whole, local=(local,), remote=rest)


def _next_hops(site: Site, gateway: Gateway) -> tuple[IPNetwork, ...]:
    """Return where a next hop of a gateway is inside its site.

    That is in the site's networks, but not in one that holds the gateway's own WAN address: there it can be
    the provider's router. The other gateways' inside addresses count in any case.
    """
    outside = gateway.address if isinstance(gateway.address, IPAddress) else None
    networks = (prefix for network in site.networks for prefix in network.prefixes)
    inside = [prefix for prefix in networks if outside is None or outside not in prefix]
    others = [IPNetwork(a) for other in site.gateways if other is not gateway for a in other.inside]
    return minimal([*inside, *others])


def _lies_in(prefix: IPNetwork, others: tuple[IPNetwork, ...]) -> bool:
    """Return whether a prefix lies in one of ``others``, which are sorted and apart."""
    place = bisect_right(others, (prefix.version, prefix.first), key=_start) - 1
    return place >= 0 and prefix in others[place]


def _start(prefix: IPNetwork) -> tuple[int, int]:
    return prefix.version, prefix.first
