"""How large an inner packet each tunnel carries, at both of its ends alike.

Where each tunnel has an MTU of its own, as an interface has, it carries what the weaker of its ends carries
with the costliest suite that they may agree on. Elsewhere the tunnels of a gateway share one:

- charon's own data path has one TUN device and one MTU for all;
- the kernel, in policy mode, computes exactly what its own WAN link leaves. It does not know that the far
  end's is smaller: that must be said on charon's routes, and charon has one MTU for all of these
  (``kernel-netlink.mtu``).

What a gateway's tunnels share the far ends share in turn, so the smallest spreads until nothing changes.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
from ipsecctl.desired.ways import Ways
from ipsecctl.topology import DataPath, Mode, Tunnel

__all__ = ["Mtus", "compute_mtus", "outer_family"]

_AGGFRAG_HEADER_BYTES = 4
"""In front of the inner packets of IP-TFS (RFC 9347 section 6.1)."""


@dataclass(frozen=True, slots=True)
class Mtus:
    """MTUs in bytes: of each tunnel's inner packets, and on charon's routes at gateways that want one.

    ``unaided`` is, by gateway and tunnel in policy mode, what the gateway would let in without the latter.
    """

    inner: Mapping[str, int]
    on_routes: Mapping[str, int]
    unaided: Mapping[tuple[str, str], int]


def compute_mtus(tunnels: Iterable[Tunnel], ways: Ways) -> Mtus:
    """Return the inner MTU of each tunnel, by name, and the MTU of charon's routes, by gateway.

    A gateway that needs none on its routes is not in the latter.

    Raises ``ValueError`` when a WAN MTU is too small for any packet (a valid topology has none such).
    """
    inner: dict[str, int] = {}
    alone: dict[tuple[str, str], int] = {}  # (gateway, tunnel) -> what the gateway itself would send
    shared: dict[str, list[str]] = defaultdict(list)  # gateway -> tunnels with one MTU, if any has to be said
    gateways: dict[str, list[str]] = {}  # tunnel -> such gateways at its ends
    for tunnel in tunnels:
        link = _link(tunnel, ways)
        inner[tunnel.name] = _mtu(tunnel, link)
        gateways[tunnel.name] = []
        for end in (tunnel.left, tunnel.right):
            name = end.gateway.name
            path = ways.data_path(name)
            ours_to_say = end.gateway.managed or path is DataPath.LIBIPSEC
            if ours_to_say and ways.mode(end) is Mode.POLICY:
                alone[name, tunnel.name] = _alone(tunnel, link, end.gateway.mtu, path)
                shared[name].append(tunnel.name)
                gateways[tunnel.name].append(name)
    on_routes: dict[str, int] = {}
    waiting = deque(sorted(shared, key=lambda name: (len(shared[name]), name)))
    queued = set(waiting)
    while waiting:
        gateway = waiting.popleft()
        queued.discard(gateway)
        smallest = min(inner[name] for name in shared[gateway])
        if all(inner[name] == alone[gateway, name] for name in shared[gateway]):
            continue
        on_routes[gateway] = smallest
        for name in shared[gateway]:
            if inner[name] > smallest:
                inner[name] = smallest
                others = [other for other in gateways[name] if other != gateway and other not in queued]
                waiting.extend(others)
                queued.update(others)
    return Mtus(inner, on_routes, alone)


def outer_family(tunnel: Tunnel) -> int:
    """Return the version of IP, 4 or 6, that carries a tunnel, as far as its addresses tell (else 4)."""
    gateways = (tunnel.left.gateway, tunnel.right.gateway)
    addresses = [address for gateway in gateways for address in (gateway.reachable_at, gateway.address)]
    return 6 if any(isinstance(address, IPAddress) and address.version == 6 for address in addresses) else 4


def _link(tunnel: Tunnel, ways: Ways) -> _Link:
    """Return the link between a tunnel's gateways: the smaller MTU, and the cap of charon's own device."""
    gateways = (tunnel.left.gateway, tunnel.right.gateway)
    capped = any(ways.data_path(gateway.name) is DataPath.LIBIPSEC for gateway in gateways)
    return _Link(
        mtu=min(gateway.mtu for gateway in gateways),
        outer=outer_family(tunnel),
        nat_t=ways.in_udp(tunnel),
        cap=LIBIPSEC_MTU if capped else None,
    )


def _alone(tunnel: Tunnel, link: _Link, wan_mtu: int, data_path: DataPath) -> int:
    """Return the largest inner packet that a gateway in policy mode lets through if nothing is said.

    The kernel's is what its own link leaves; charon's TUN device takes ``LIBIPSEC_MTU`` whatever the link.
    """
    if data_path is DataPath.LIBIPSEC:
        return LIBIPSEC_MTU
    return _mtu(tunnel, link._replace(mtu=wan_mtu, cap=None))


def _mtu(tunnel: Tunnel, link: _Link) -> int:
    """Return the largest inner packet that a tunnel carries over a link."""
    left, right = tunnel.left, tunnel.right
    carried = _link_mtu(link, left.profile.esp_proposals, right.profile.esp_proposals)
    iptfs = left.options.iptfs or right.options.iptfs
    return carried - _AGGFRAG_HEADER_BYTES if iptfs else carried


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
