"""Firewall rules as nftables sets: few sets, few rules, however many tunnels there are.

A set holds pairs of prefixes (``ip saddr . ip daddr``), one set for each family, mode and MSS. The kernel
finds a pair in a set in time that does not depend on its size, but refuses pairs that overlap: so pairs that
another contains are left out, and where two cross (a narrow source to a wide destination, and the other way
round), the one with the narrow source loses what the other has. In route mode a further set of each family
has the interface in front of each pair: the ways that packets between them may take.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from operator import itemgetter
from typing import TypeAlias

from netaddr import IPNetwork

from ipsecctl.desired import Elsewhere, FirewallRule, HeldPair
from ipsecctl.render.quoting import bare

__all__ = ["ElsewhereSet", "GuardSet", "WaySet", "elsewhere_sets", "guard_sets", "way_sets"]

Span: TypeAlias = tuple[int, int]
"""A range of addresses as numbers: first and last."""

_Pairs: TypeAlias = dict[Span, set[Span]]
"""Remote spans by local one."""

_BITS = {4: 32, 6: 128}
_HEADERS = {4: "ip", 6: "ip6"}
_ADDRESS = {4: IPv4Address, 6: IPv6Address}


@dataclass(frozen=True, slots=True)
class GuardSet:
    """Pairs of local and remote prefixes of one family, mode and MSS, as elements of an nftables set.

    ``elements`` are texts, sorted by address: ``10.20.1.0/24 . 10.10.0.0/24`` (local first).
    """

    family: int
    mss: int
    elements: tuple[str, ...]
    routed: bool = False

    @property
    def name(self) -> str:
        return f"ipv{self.family}{'_route' if self.routed else ''}_mss_{self.mss}"

    @property
    def address(self) -> str:
        """The word of nftables for this family's header."""
        return _HEADERS[self.family]


@dataclass(frozen=True, slots=True)
class WaySet:
    """Interfaces and the pairs of prefixes that go through them, as elements of an nftables set.

    ``elements`` are texts, sorted by interface and address: ``"ix-ab" . 10.20.1.0/24 . 10.10.0.0/24``.
    """

    family: int
    elements: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"ipv{self.family}_ways"

    @property
    def address(self) -> str:
        """The word of nftables for this family's header."""
        return _HEADERS[self.family]


@dataclass(frozen=True, slots=True)
class ElsewhereSet:
    """Pairs of prefixes that tunnels of other gateways carry, and next hops inside the site, of one family.

    ``elements`` and ``next_hops`` are texts, sorted by address; the latter may be empty.
    """

    family: int
    elements: tuple[str, ...]
    next_hops: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"ipv{self.family}_elsewhere"

    @property
    def address(self) -> str:
        """The word of nftables for this family's header."""
        return _HEADERS[self.family]


def elsewhere_sets(elsewhere: Elsewhere) -> tuple[ElsewhereSet, ...]:
    """Return the sets for what tunnels of a site's other gateways carry, IPv4 first."""
    groups: dict[int, _Pairs] = defaultdict(_no_pairs)
    for pair in elsewhere.pairs:
        _add(groups[pair.family], pair)
    return tuple(
        ElsewhereSet(
            family,
            _elements(family, groups[family]),
            tuple(_text(family, _span(p)) for p in elsewhere.next_hops if p.version == family),
        )
        for family in sorted(groups)
    )


def guard_sets(rules: Iterable[FirewallRule]) -> tuple[GuardSet, ...]:
    """Return the sets for the firewall rules of one gateway, sorted by mode, family and MSS."""
    groups: dict[tuple[bool, int, int], _Pairs] = defaultdict(_no_pairs)
    for rule in rules:
        _add(groups[bool(rule.interface), rule.family, rule.mss], rule)
    return tuple(
        GuardSet(family, mss, _elements(family, pairs), routed)
        for (routed, family, mss), pairs in sorted(groups.items(), key=itemgetter(0))
    )


def way_sets(rules: Iterable[FirewallRule]) -> tuple[WaySet, ...]:
    """Return the ways that packets may take in route mode, a set for each family, IPv4 first."""
    groups: dict[int, dict[str, _Pairs]] = defaultdict(lambda: defaultdict(_no_pairs))
    for rule in rules:
        if rule.interface:
            _add(groups[rule.family][rule.interface], rule)
    return tuple(
        WaySet(
            family,
            tuple(
                f'"{bare(interface)}" . {element}'
                for interface, pairs in sorted(groups[family].items(), key=itemgetter(0))
                for element in _elements(family, pairs)
            ),
        )
        for family in sorted(groups)
    )


def _no_pairs() -> _Pairs:
    return defaultdict(set)


def _add(pairs: _Pairs, rule: FirewallRule | HeldPair) -> None:
    remotes = [_span(prefix) for prefix in rule.remote]
    for prefix in rule.local:
        pairs[_span(prefix)].update(remotes)


def _elements(family: int, remotes_of: _Pairs) -> tuple[str, ...]:
    spans_of = {local: _merged(remotes) for local, remotes in remotes_of.items()}
    elements: list[str] = []
    around: list[Span] = []  # the local spans that contain the present one
    for local in sorted(spans_of, key=lambda span: (span[0], -span[1])):
        while around and around[-1][1] < local[0]:
            around.pop()
        remotes = spans_of[local]
        for wider in around:
            remotes = _without(remotes, spans_of[wider])
        source = _text(family, local)
        elements.extend(f"{source} . {_text(family, remote)}" for remote in remotes)
        around.append(local)
    return tuple(elements)


def _span(prefix: IPNetwork) -> Span:
    host_bits = _BITS[prefix.version] - prefix.prefixlen
    first = prefix.value >> host_bits << host_bits
    return first, first | (1 << host_bits) - 1


def _merged(spans: Iterable[Span]) -> list[Span]:
    """Return spans sorted, those inside another left out. Those of prefixes never overlap in part."""
    kept: list[Span] = []
    for first, last in sorted(spans):
        if kept and kept[-1][0] == first:
            kept[-1] = (first, last)  # the wider of two that begin together comes later
        elif not kept or last > kept[-1][1]:
            kept.append((first, last))
    return kept


def _without(spans: list[Span], holes: list[Span]) -> list[Span]:
    """Return what of ``spans`` is outside ``holes``: all are sorted and free of overlap."""
    left: list[Span] = []
    start = 0
    for first, last in spans:
        while start < len(holes) and holes[start][1] < first:
            start += 1
        place, at = start, first
        while place < len(holes) and holes[place][0] <= last:
            if at < holes[place][0]:
                left.append((at, holes[place][0] - 1))
            at = max(at, holes[place][1] + 1)
            place += 1
        if at <= last:
            left.append((at, last))
    return left


@lru_cache(maxsize=16384)  # each stands on several gateways, and beside several others
def _text(family: int, span: Span) -> str:
    """Return a span as a prefix where it is one, else as a range."""
    first, last = span
    size = last - first + 1
    address = _ADDRESS[family]
    if size & (size - 1) == 0 and first % size == 0:
        return f"{address(first)}/{_BITS[family] - size.bit_length() + 1}"
    return f"{address(first)}-{address(last)}"
