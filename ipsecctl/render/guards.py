"""Firewall rules as nftables sets: few sets, few rules, however many tunnels there are.

A set holds pairs of prefixes (``ip saddr . ip daddr``), one set for each family and MSS. The kernel finds a
pair in a set in time that does not depend on its size, but refuses pairs that overlap: so pairs that another
contains are left out, and where two cross (a narrow source to a wide destination, and the other way round),
the one with the narrow source loses what the other has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from netaddr import IPNetwork

from ipsecctl.desired import FirewallRule

__all__ = ["GuardSet", "guard_sets"]

Span: TypeAlias = tuple[int, int]
"""A range of addresses as numbers: first and last."""

_BITS = {4: 32, 6: 128}
_ADDRESS = {4: IPv4Address, 6: IPv6Address}


@dataclass(frozen=True, slots=True)
class GuardSet:
    """Pairs of local and remote prefixes of one family and one MSS, as elements of an nftables set.

    ``elements`` are texts, sorted by address: ``10.20.1.0/24 . 10.10.0.0/24`` (local first).
    """

    family: int
    mss: int
    elements: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"ipv{self.family}_mss_{self.mss}"

    @property
    def address(self) -> str:
        """The word of nftables for this family's header."""
        return "ip" if self.family == 4 else "ip6"


def guard_sets(rules: Iterable[FirewallRule]) -> tuple[GuardSet, ...]:
    """Return the sets for the firewall rules of one gateway, sorted by family and MSS."""
    groups: dict[tuple[int, int], dict[Span, set[Span]]] = defaultdict(lambda: defaultdict(set))
    for rule in rules:
        group = groups[rule.family, rule.mss]
        remotes = [_span(prefix) for prefix in rule.remote]
        for prefix in rule.local:
            group[_span(prefix)].update(remotes)
    return tuple(
        GuardSet(family, mss, _elements(family, groups[family, mss])) for family, mss in sorted(groups)
    )


def _elements(family: int, remotes_of: dict[Span, set[Span]]) -> tuple[str, ...]:
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
