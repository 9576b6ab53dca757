"""Which gateways of a topology are meant: by names of gateways and sites, with ``*``, ``?`` and ``[]``."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

from ipsecctl.errors import IpsecctlError
from ipsecctl.topology import Topology

__all__ = ["gateways_of_sites", "limited", "with_far_ends"]

_WILD = frozenset("*?[")


def limited(topology: Topology, globs: Iterable[str]) -> frozenset[str]:
    """Return the managed gateways whose name, or whose site's, fits one of ``globs``.

    Raises ``IpsecctlError`` for a glob that fits none, with the nearest name.
    """
    found: set[str] = set()
    for glob in globs:
        fitting = [
            gateway
            for gateway in topology.gateways()
            if fnmatchcase(gateway.name, glob) or fnmatchcase(gateway.site, glob)
        ]
        managed = {gateway.name for gateway in fitting if gateway.managed}
        if not managed:
            raise _none_fits(topology, glob, [gateway.name for gateway in fitting])
        found |= managed
    return frozenset(found)


def _none_fits(topology: Topology, glob: str, fitting: list[str]) -> IpsecctlError:
    if fitting:
        return IpsecctlError(
            f"--limit '{glob}': {', '.join(fitting)} is somebody else's (managed: false)",
            "Only gateways of ours are changed.",
        )
    ours = [gateway for gateway in topology.gateways() if gateway.managed]
    names = sorted({name for gateway in ours for name in (gateway.name, gateway.site)})
    return IpsecctlError(
        f"--limit '{glob}' fits no gateway and no site of {topology.file}", _nearest(glob, names)
    )


def gateways_of_sites(topology: Topology, sites: Iterable[str]) -> frozenset[str]:
    """Return the managed gateways of sites. Raises ``IpsecctlError`` where there are none, likewise."""
    by_name = {site.name: site for site in topology.sites}
    managed = [site.name for site in topology.sites if any(g.managed for g in site.gateways)]
    found: set[str] = set()
    for name in sites:
        if name not in by_name:
            of_gateway = {gateway.name: gateway.site for gateway in topology.gateways()}
            hint = (
                f"That is a gateway of the site '{of_gateway[name]}'."
                if name in of_gateway
                else _nearest(name, managed)
            )
            raise IpsecctlError(f"--canary: there is no site '{name}' in {topology.file}", hint)
        if name not in managed:
            raise IpsecctlError(
                f"--canary: the site '{name}' is somebody else's (managed: false)",
                f"Sites of ours are: {', '.join(managed)}.",
            )
        found |= {gateway.name for gateway in by_name[name].gateways if gateway.managed}
    return frozenset(found)


def _nearest(name: str, names: list[str]) -> str:
    plain = "".join(letter for letter in name if letter not in _WILD)
    near = get_close_matches(plain, names, n=1)
    if near:
        return f"Did you mean '{near[0]}'?"
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"There are: {shown or 'none'}."


def with_far_ends(topology: Topology, gateways: Iterable[str]) -> frozenset[str]:
    """Return gateways and the managed far ends of their tunnels."""
    chosen = frozenset(gateways)
    return chosen | {
        end.gateway.name
        for tunnel in topology.tunnels
        if {tunnel.left.gateway.name, tunnel.right.gateway.name} & chosen
        for end in (tunnel.left, tunnel.right)
        if end.gateway.managed
    }
