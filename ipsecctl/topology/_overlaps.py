"""Networks that cannot be told apart, found by one sorted sweep for each site over its own and its peers'.

Prefixes are nested or apart, never half and half: swept in order of their first address, those that hold the
present one form a stack. That is n log n, and a hub sees each of its spokes once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from netaddr import IPAddress, IPNetwork

from ipsecctl.topology._findings import Findings
from ipsecctl.topology._sites import Sites
from ipsecctl.topology._tunnels import Draft
from ipsecctl.topology.model import FlowEnd, Gateway, Path

__all__ = ["check_overlaps"]

_SHARED_WITH: Final = "shared with "
_LEVELS: Final = 16


def _any_overlap(sites: Sites) -> bool:
    """Whether anything in the file overlaps across sites: mostly not, and then one sweep has shown it."""
    spans: list[tuple[int, int, int, str]] = []
    for name, site in sites.by_name.items():
        spans += ((p.version, p.first, -p.last, name) for n in site.networks for p in n.prefixes)
        for gateway in site.gateways:
            address = gateway.reachable_at
            if isinstance(address, IPAddress):
                # No site's name is empty: an address counts against the networks of its own site too.
                spans.append((address.version, int(address), -int(address), ""))
    spans.sort()
    around = (0, 0, 0, "")
    for span in spans:
        inside = span[0] == around[0] and span[1] <= -around[2]
        if inside and span[3] != around[3]:
            return True
        if not inside:
            around = span
    return False


@dataclass(frozen=True, slots=True)
class _Item:
    """A prefix, or a gateway's public address, as the sweep sees it.

    ``tunnelled``: the prefix belongs into some tunnel of the site that sweeps. ``is_own``: the address is
    that of a gateway there.
    """

    version: int
    first: int
    last: int
    site: str
    label: str
    path: Path
    tunnelled: bool = True
    is_address: bool = False
    is_own: bool = False

    @property
    def order(self) -> tuple[int, int, int, bool]:
        return (self.version, self.first, -self.last, self.is_address)


@dataclass(slots=True)
class _Seen:
    """What tunnels of a site select at one of its peers, or at itself, and the gateways that they join."""

    selected: dict[int, Sequence[FlowEnd]] = field(default_factory=dict)
    gateways: dict[str, Gateway] = field(default_factory=dict)

    def add(self, gateway: Gateway, ends: Iterable[Sequence[FlowEnd]]) -> None:
        self.gateways[gateway.name] = gateway
        # Tunnels without declared flows share one tuple a site: its identity saves comparing prefixes.
        self.selected.update((id(several), several) for several in ends)


def check_overlaps(drafts: Iterable[Draft], sites: Sites, findings: Findings) -> None:
    """Report overlapping networks of sites that a tunnel or a peer joins, and addresses inside tunnels."""
    if not _any_overlap(sites):
        return
    peers: dict[str, dict[str, _Seen]] = defaultdict(dict)
    own: dict[str, _Seen] = defaultdict(_Seen)
    for draft in drafts:
        left, right = draft.left.gateway, draft.right.gateway
        flows = (*draft.flows, *draft.presumed)
        peers[left.site].setdefault(right.site, _Seen()).add(right, (flow.right for flow in flows))
        peers[right.site].setdefault(left.site, _Seen()).add(left, (flow.left for flow in flows))
        own[left.site].add(left, (flow.left for flow in flows))
        own[right.site].add(right, (flow.right for flow in flows))
    sweep = _Sweep(sites, peers, own, findings)
    for site in peers:
        sweep.site(site)
    sweep.report()


class _Sweep:
    def __init__(
        self,
        sites: Sites,
        peers: dict[str, dict[str, _Seen]],
        own: dict[str, _Seen],
        findings: Findings,
    ) -> None:
        self._sites = sites
        self._peers = peers
        self._own_seen = own
        self._findings = findings
        self._items: dict[int, list[_Item]] = {}
        self._numbers: dict[tuple[str, str], dict[IPNetwork, int]] = {}
        self._overlaps: dict[tuple[Path, Path], tuple[_Item, _Item, str]] = {}
        self._inside: dict[Path, tuple[_Item, _Item]] = {}

    def site(self, name: str) -> None:
        """Sweep over what one site has and sees."""
        items = {item.path: item for item in self._own(name)}
        for peer_name, peer in self._peers[name].items():
            for identity, ends in peer.selected.items():
                if identity not in self._items:
                    self._items[identity] = [self._item(peer_name, e.network, e.prefix) for e in ends]
                items.update((item.path, item) for item in self._items[identity])
            for gateway in peer.gateways.values():
                items.update((item.path, item) for item in _public_address(gateway))
        stack: list[_Item] = []
        for item in sorted(items.values(), key=lambda item: item.order):
            while stack and (stack[-1].version != item.version or stack[-1].last < item.first):
                stack.pop()
            self._compare(name, item, stack)
            if not item.is_address:
                stack.append(item)

    def _own(self, site: str) -> Iterable[_Item]:
        """Yield what a site has itself, and the addresses of those of its gateways that have tunnels.

        An address that is only its own behind a NAT does no harm anywhere: no packet on the WAN bears it.
        """
        seen = self._own_seen[site]
        tunnelled = {(end.network, end.prefix) for ends in seen.selected.values() for end in ends}
        for network in self._sites.by_name[site].networks:
            for prefix in network.prefixes:
                yield self._item(site, network.name, prefix, tunnelled=(network.name, prefix) in tunnelled)
        for gateway in seen.gateways.values():
            yield from _public_address(gateway, is_own=True)

    def _item(self, site: str, network: str, prefix: IPNetwork, *, tunnelled: bool = True) -> _Item:
        path = ("sites", site, "networks", network, self._number(site, network, prefix))
        label = f"{site}.{network} {prefix}"
        return _Item(prefix.version, prefix.first, prefix.last, site, label, path, tunnelled)

    def _number(self, site: str, network: str, prefix: IPNetwork) -> int:
        """Return where a prefix stands in the list of its network, the first time if several."""
        numbers = self._numbers.get((site, network))
        if numbers is None:
            numbers = self._numbers[site, network] = {}
            for number, each in enumerate(self._sites.docs[site].networks[network]):
                numbers.setdefault(each, number)
        return numbers[prefix]

    def _compare(self, here: str, item: _Item, stack: Sequence[_Item]) -> None:
        """Find the prefixes around ``item`` that collide with it, the narrowest first.

        Of several that are equal one is enough, and so are the nearest few: that keeps the sweep linear.
        """
        seen: set[tuple[int, int]] = set()
        for around in reversed(stack[-_LEVELS:]):
            if (around.first, around.last) in seen:
                continue
            if item.is_address:
                # What its own site's networks hold of it is for those to say who call it.
                if around.tunnelled and not (item.is_own and around.site == item.site):
                    self._inside.setdefault(item.path, (item, around))
                    return
            elif around.site != item.site and (item.tunnelled or around.tunnelled):
                one, other = sorted((around, item), key=lambda i: self._findings.line(i.path))
                joined = other.site in self._peers[one.site]
                kind = "joined" if joined else _SHARED_WITH + here
                self._overlaps.setdefault((one.path, other.path), (one, other, kind))
                seen.add((around.first, around.last))

    def report(self) -> None:
        for address, network in self._inside.values():
            line = self._findings.line(network.path)
            summary = f"{address.label} lies inside the tunnelled network {network.label} (line {line})"
            hint = "the packets of the tunnel would go into the tunnel: leave the address out of the network"
            self._findings.error("IP115", address.path, summary, hint)
        for one, other, kind in self._overlaps.values():
            self._report_overlap(one, other, kind)

    def _report_overlap(self, one: _Item, other: _Item, kind: str) -> None:
        summary = f"{other.label} overlaps {one.label} (line {self._findings.line(one.path)})"
        if kind == "joined":
            summary += ", and a tunnel joins the two sites"
            hint = "renumber one of them, or leave it out with 'flows:'"
            self._findings.error("IP113", other.path, summary, hint)
        else:
            summary += (
                f", and {kind.removeprefix(_SHARED_WITH)!r}, with tunnels to both, cannot tell them apart"
            )
            hint = "renumber one of them, or leave it out with 'flows:'"
            self._findings.error("IP114", other.path, summary, hint)


def _public_address(gateway: Gateway, *, is_own: bool = False) -> Iterable[_Item]:
    address = gateway.reachable_at
    if isinstance(address, IPAddress):
        key = "public_address" if gateway.public_address is not None else "address"
        number = int(address)
        label = f"the address {address} of the gateway {gateway.name!r}"
        path = (*gateway.where, key)
        where = (address.version, number, number, gateway.site)
        yield _Item(*where, label, path, is_address=True, is_own=is_own)
