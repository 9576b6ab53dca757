"""How large an inner packet each tunnel carries, at both of its ends alike.

Each tunnel carries what the weaker of its ends carries with the costliest suite that they may agree on. The
kernel computes what its own WAN link leaves and does not know that the far end's is narrower: an interface
has that as its MTU, and in policy mode the routes on which packets are held have it, prefix by prefix. Where
a packet cannot tell two tunnels of a gateway apart by that, they share one MTU:

- charon's own data path has one TUN device, and one MTU on its routes, for all (``kernel-netlink.mtu``);
- in policy mode, tunnels to the same far networks (from different ones here) have the same routes.

What a gateway's tunnels share the far ends share in turn, so the smallest spreads until nothing changes.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
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
from ipsecctl.desired.spans import Span, overlaps, span_of, widest
from ipsecctl.desired.ways import Ways
from ipsecctl.topology import DataPath, Mode, Tunnel

__all__ = ["Mtus", "compute_mtus", "outer_family"]

_AGGFRAG_HEADER_BYTES = 4
"""In front of the inner packets of IP-TFS (RFC 9347 section 6.1)."""


@dataclass(frozen=True, slots=True)
class Mtus:
    """MTUs in bytes: of each tunnel's inner packets, and on charon's routes at gateways that want one."""

    inner: Mapping[str, int]
    on_routes: Mapping[str, int]


def compute_mtus(tunnels: Iterable[Tunnel], ways: Ways) -> Mtus:
    """Return the inner MTU of each tunnel, by name, and the MTU of charon's routes, by gateway.

    A gateway that needs none on its routes is not in the latter.

    Raises ``ValueError`` when a WAN MTU is too small for any packet (a valid topology has none such).
    """
    inner: dict[str, int] = {}
    one_device: dict[str, list[str]] = defaultdict(list)  # gateway with charon's data path -> tunnels
    by_policy: dict[tuple[str, str], list[_Use]] = defaultdict(list)  # (gateway, far site) -> tunnels
    for tunnel in tunnels:
        inner[tunnel.name] = _mtu(tunnel, _link(tunnel, ways))
        for here, there in ((tunnel.left, tunnel.right), (tunnel.right, tunnel.left)):
            name = here.gateway.name
            if ways.data_path(name) is DataPath.LIBIPSEC:
                one_device[name].append(tunnel.name)
            elif here.gateway.managed and ways.mode(here) is Mode.POLICY:
                by_policy[name, there.gateway.site].append(_Use(tunnel, here is tunnel.left))
    bonds = [*one_device.values(), *_with_networks_in_common(by_policy.values())]
    _spread(inner, bonds)
    smallest = {gateway: inner[names[0]] for gateway, names in one_device.items()}
    return Mtus(inner, {gateway: mtu for gateway, mtu in smallest.items() if mtu != LIBIPSEC_MTU})


def _spread(inner: dict[str, int], bonds: Sequence[Sequence[str]]) -> None:
    """Give the tunnels of each bond the smallest MTU among them, until nothing changes any more."""
    bonds_of: dict[str, list[int]] = defaultdict(list)
    for number, names in enumerate(bonds):
        for name in names:
            bonds_of[name].append(number)
    waiting = deque(range(len(bonds)))
    queued = set(waiting)
    while waiting:
        number = waiting.popleft()
        queued.discard(number)
        smallest = min(inner[name] for name in bonds[number])
        for name in bonds[number]:
            if inner[name] > smallest:
                inner[name] = smallest
                others = [other for other in bonds_of[name] if other != number and other not in queued]
                waiting.extend(others)
                queued.update(others)


class _Use(NamedTuple):
    """A tunnel as one of its gateways has it."""

    tunnel: Tunnel
    is_left: bool

    def far(self) -> tuple[Span, ...]:
        """Return the far end's networks of its flows, sorted, those inside another left out."""
        flows = self.tunnel.flows
        ends = (end for flow in flows for end in (flow.right if self.is_left else flow.left))
        return widest({span_of(end.prefix) for end in ends})


def _with_networks_in_common(several: Iterable[Sequence[_Use]]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of tunnels that lead to some network both.

    Those of one gateway to different sites have none in common: ``validate`` refuses that (IP113, IP114).
    """
    for uses in several:
        if len(uses) > 1:
            far = [(use.tunnel.name, use.far()) for use in uses]
            for (one, networks), (other, others) in combinations(far, 2):
                if any(overlaps(network, others) for network in networks):
                    yield one, other


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
