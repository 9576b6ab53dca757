"""Prefixes as spans of numbers: for thousands of them netaddr's own arithmetic costs most of a compilation.

Prefixes are nested or apart, never half and half.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import TypeAlias

from netaddr import IPNetwork

__all__ = ["Span", "last_address", "lies_in", "overlaps", "span_of", "widest"]

Span: TypeAlias = tuple[int, int, int]
"""A prefix as numbers: version, first address, and its length; a wider one sorts before those inside it."""

_BITS = {4: 32, 6: 128}


def span_of(prefix: IPNetwork) -> Span:
    """Return a prefix as a span; host bits that it may have count for nothing."""
    version, length = prefix.version, prefix.prefixlen
    host_bits = _BITS[version] - length
    return version, prefix.value >> host_bits << host_bits, length


def last_address(span: Span) -> int:
    """Return the last address of a span."""
    version, first, length = span
    return first | (1 << _BITS[version] - length) - 1


def widest(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return spans sorted, without those that lie in another of them."""
    kept: list[Span] = []
    for span in sorted(spans):
        if not kept or kept[-1][0] != span[0] or last_address(kept[-1]) < span[1]:
            kept.append(span)
    return tuple(kept)


def lies_in(span: Span, others: tuple[Span, ...]) -> bool:
    """Return whether a span lies in one of ``others``, which are sorted and apart."""
    place = bisect_right(others, span) - 1
    return place >= 0 and others[place][0] == span[0] and span[1] <= last_address(others[place])


def overlaps(span: Span, others: tuple[Span, ...]) -> bool:
    """Return whether a span has addresses in common with one of ``others``, sorted and apart."""
    place = bisect_right(others, span)
    inside = place < len(others) and others[place][0] == span[0] and others[place][1] <= last_address(span)
    return inside or lies_in(span, others)
