"""Routes that keep traffic for a tunnel at home while no tunnel carries it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from netaddr import IPAddress, IPNetwork

from ipsecctl.desired.state import FirewallRule, Route
from ipsecctl.topology import DataPath, Gateway

__all__ = ["holding_routes"]

_PRIVATE = tuple(
    IPNetwork(prefix)
    for prefix in ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
"""Where no peer across the Internet has its outer address: RFC 1918, RFC 6598, RFC 4193."""


def holding_routes(
    data_path: DataPath, peers: Iterable[Gateway], rules: Iterable[FirewallRule]
) -> tuple[Route, ...]:
    """Return an unreachable route for each remote prefix, sorted: a tunnel that is down fails at once.

    Only where charon carries ESP itself: its routes (table 220, looked up before the main table) always exist
    while a tunnel is up. With the kernel's data path charon adds a route only if the gateway has an address
    in the local network; for any other gateway the packet must find its way through the main table to meet
    its IPsec policy at all, so an unreachable route would stop a tunnel that works. There the firewall alone
    does the holding.

    A prefix that contains, or might contain, the outer address of a peer is left out: IKE must still reach
    it.
    """
    if data_path is not DataPath.LIBIPSEC:
        return ()
    outer, all_known = _outer_addresses(peers)
    tunnels: dict[IPNetwork, str] = {}
    for rule in rules:
        for prefix in rule.remote:
            tunnels.setdefault(prefix, rule.tunnel)
    return tuple(
        Route(prefix, tunnel)
        for prefix, tunnel in sorted(tunnels.items())
        if (all_known or _is_private(prefix)) and not _holds_any(prefix, outer)
    )


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
