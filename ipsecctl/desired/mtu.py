"""How large an inner packet each tunnel carries, at both of its ends alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from netaddr import IPAddress

from ipsecctl.crypto import (
    LIBIPSEC_MTU,
    EspSuite,
    Proposal,
    common_suites,
    esp_suites,
    overhead,
    parse_esp_proposal,
)
from ipsecctl.topology import DataPath, End, Tunnel

__all__ = ["inner_mtus", "outer_family"]


def inner_mtus(tunnels: Iterable[Tunnel], data_paths: Mapping[str, DataPath]) -> dict[str, int]:
    """Return the inner MTU in bytes of each tunnel, by name.

    A tunnel carries what the weaker of its two ends carries with the costliest suite that they may agree on.
    charon's own data path has one TUN device and one MTU for all tunnels of a gateway, so all of them share
    the smallest, and so do the far ends. ``data_paths`` is by gateway name and knows no ``auto``; an end
    without one is the kernel's.

    Raises ``ValueError`` when a WAN MTU is too small for any packet (a valid topology has none such).
    """
    mtus: dict[str, int] = {}
    shared: dict[str, list[str]] = defaultdict(list)  # libipsec gateway -> its tunnels
    ends: dict[str, list[str]] = {}  # tunnel -> its libipsec gateways
    for tunnel in tunnels:
        mtus[tunnel.name] = _own_mtu(tunnel, data_paths)
        ends[tunnel.name] = [
            end.gateway.name for end in (tunnel.left, tunnel.right) if _is_libipsec(end, data_paths)
        ]
        for gateway in ends[tunnel.name]:
            shared[gateway].append(tunnel.name)
    # Smallest first: a gateway takes the MTU of the first tunnel that reaches it, and hands it on.
    for first in sorted(mtus, key=lambda name: (mtus[name], name)):
        waiting = [first]
        while waiting:
            name = waiting.pop()
            for gateway in ends[name]:
                neighbours = shared.pop(gateway, [])
                mtus.update(dict.fromkeys(neighbours, mtus[first]))
                waiting.extend(neighbours)
    return mtus


def outer_family(tunnel: Tunnel) -> int:
    """Return the version of IP, 4 or 6, that carries a tunnel, as far as its addresses tell (else 4)."""
    gateways = (tunnel.left.gateway, tunnel.right.gateway)
    addresses = [address for gateway in gateways for address in (gateway.reachable_at, gateway.address)]
    return 6 if any(isinstance(address, IPAddress) and address.version == 6 for address in addresses) else 4


def _own_mtu(tunnel: Tunnel, data_paths: Mapping[str, DataPath]) -> int:
    left, right = tunnel.left, tunnel.right
    capped = _is_libipsec(left, data_paths) or _is_libipsec(right, data_paths)
    link = _Link(
        mtu=min(left.gateway.mtu, right.gateway.mtu),
        outer=outer_family(tunnel),
        nat_t=tunnel.behind_nat,
        cap=LIBIPSEC_MTU if capped else None,
    )
    return _link_mtu(link, left.profile.esp_proposals, right.profile.esp_proposals)


class _Link(NamedTuple):
    """What of a tunnel, its suites apart, decides how much it carries."""

    mtu: int
    outer: int
    nat_t: bool
    cap: int | None


@lru_cache(maxsize=1024)
def _link_mtu(link: _Link, ours: tuple[str, ...], theirs: tuple[str, ...]) -> int:
    return min(
        overhead(link.mtu, suite, outer=link.outer, nat_t=link.nat_t, cap=link.cap).inner_mtu
        for suite in _suites(ours, theirs)
    )


def _suites(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[EspSuite, ...]:
    """Return the suites in common; where there are none (``validate`` refuses that), all of them."""
    mine, other = _proposals(ours), _proposals(theirs)
    return common_suites(mine, other) or tuple(
        suite for proposal in (*mine, *other) for suite in esp_suites(proposal)
    )


def _proposals(texts: tuple[str, ...]) -> tuple[Proposal, ...]:
    return tuple(parse_esp_proposal(text) for text in texts)


def _is_libipsec(end: End, data_paths: Mapping[str, DataPath]) -> bool:
    return data_paths.get(end.gateway.name, DataPath.KERNEL) is DataPath.LIBIPSEC
