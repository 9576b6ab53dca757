"""Whether a gateway has a way to each of its own networks: a route of the main table that is no default one.

``ways_home`` decides that from the routes that a script (_network_script.py) tells. It is what the rules of
``ipsecctl.desired.rules`` let pass; where it is missing, they hold what tunnels bring for that network.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from netaddr import IPNetwork

from ipsecctl.desired import DEFAULT_LENGTHS

if TYPE_CHECKING:
    from ipsecctl.gateway.ways import RouteSeen

__all__ = ["WayHome", "ways_home"]

_TUNNELS: Final = ("ix-", "ipsec0")
"""How the names of interfaces begin that lead into tunnels, or nowhere."""


class WayHome(StrEnum):
    """How a gateway reaches a network of its own site."""

    THERE = "there"
    """By a route that is not a default one, to any part of it; or it is on the gateway itself."""
    NO_LINK = "no link"
    """Such a route is there, and its interface has no link: what is for the network is lost in it."""
    MISSING = "missing"
    """There is none: what is for the network is held."""


def ways_home(
    networks: Iterable[IPNetwork], routes: Iterable[RouteSeen], here: Iterable[IPNetwork] = ()
) -> dict[IPNetwork, WayHome]:
    """Return by network how it is reached; ``routes`` are all of the main table that have to do with them.

    ``here`` are the addresses of the gateway's ``lo``: a network that has one of these is reached there.
    Routes as wide as a default one do not count, nor those that lead nowhere, into a tunnel, or are ours.
    """
    ways, here = [route for route in routes if _leads_home(route)], tuple(here)
    found = {}
    for network in networks:
        near = [way for way in ways if way.prefix in network or network in way.prefix]
        live = any(not way.no_link for way in near) or any(address.ip in network for address in here)
        found[network] = WayHome.THERE if live else WayHome.NO_LINK if near else WayHome.MISSING
    return found


def _leads_home(route: RouteSeen) -> bool:
    return (
        route.kind == "unicast"
        and route.prefix.prefixlen > DEFAULT_LENGTHS[route.prefix.version]
        and not route.ours
        and not route.interface.startswith(_TUNNELS)
    )
