"""What new CHILD_SAs do not carry of what the old ones did: a peer may have narrowed their selectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from netaddr import IPNetwork

from ipsecctl.health.sa import ChildSa
from ipsecctl.health.traffic import Selector, Traffic, parse_selector

__all__ = ["shortfall"]

_Pair = tuple[Selector, Selector]


def shortfall(declared: Iterable[Traffic], old: Iterable[ChildSa], new: Iterable[ChildSa]) -> tuple[str, ...]:
    """Return what ``old`` carry, what is ``declared`` wants still, and none of ``new`` carries.

    As "LOCAL === REMOTE", sorted. A responder may choose a subset of the selectors that it is offered
    (RFC 7296 section 2.9). What is not understood of charon's words is left out, as is a part that only
    several of ``new`` carry together.
    """
    wanted = [pair for traffic in declared for pair in _pairs(traffic.local_ts, traffic.remote_ts)]
    carried = [pair for sa in new for pair in _pairs(sa.local_ts, sa.remote_ts)]
    kept = (
        common
        for sa in old
        for pair in _pairs(sa.local_ts, sa.remote_ts)
        for other in wanted
        if (common := _common_pair(pair, other)) is not None
    )
    return tuple(
        sorted({_text(pair) for pair in kept if not any(_common_pair(pair, new) == pair for new in carried)})
    )


def _pairs(local_ts: Iterable[str], remote_ts: Iterable[str]) -> Iterator[_Pair]:
    remote = [parsed for text in remote_ts if (parsed := parse_selector(text)) is not None]
    for text in local_ts:
        if (local := parse_selector(text)) is not None:
            yield from ((local, other) for other in remote)


def _common_pair(one: _Pair, other: _Pair) -> _Pair | None:
    local, remote = _common(one[0], other[0]), _common(one[1], other[1])
    return None if local is None or remote is None else (local, remote)


def _common(one: Selector, other: Selector) -> Selector | None:
    """Return what two selectors have in common: prefixes are disjoint, or one lies in the other."""
    (a, protocol, ports), (b, other_protocol, other_ports) = one, other
    if a not in b and b not in a:
        return None
    if None not in (protocol, other_protocol) and protocol != other_protocol:
        return None
    first, last = max(ports[0], other_ports[0]), min(ports[1], other_ports[1])
    if first > last:
        return None
    both = a if a in b else b
    return IPNetwork(both).cidr, other_protocol if protocol is None else protocol, (first, last)


def _text(pair: _Pair) -> str:
    return " === ".join(map(_side, pair))


def _side(selector: Selector) -> str:
    prefix, protocol, (first, last) = selector
    if protocol is None:
        return str(prefix)
    ports = "" if (first, last) == (0, 65535) else f"/{first}" if first == last else f"/{first}-{last}"
    return f"{prefix}[{protocol}{ports}]"
