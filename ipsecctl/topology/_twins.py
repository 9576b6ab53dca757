"""Two tunnels between the same two gateways that would carry the same packets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from netaddr import IPNetwork

from ipsecctl.topology._findings import Findings
from ipsecctl.topology._tunnels import Draft
from ipsecctl.topology.model import Flow, FlowEnd

__all__ = ["check_twins"]


def check_twins(drafts: Iterable[Draft], findings: Findings) -> None:
    """Report pairs of tunnels of which a gateway could not say which one a packet belongs to."""
    between: dict[tuple[str, ...], list[Draft]] = defaultdict(list)
    for draft in drafts:
        between[tuple(sorted((draft.left.gateway.name, draft.right.gateway.name)))].append(draft)
    for several in between.values():
        if len(several) > 1:
            _check_between(several, findings)


@dataclass(frozen=True, slots=True)
class _Selected:
    """What one flow selects in one family; ``one`` is the side of the same gateway for all compared."""

    draft: Draft
    protocol: int | None
    one: tuple[IPNetwork, ...]
    other: tuple[IPNetwork, ...]
    one_ports: tuple[int, int] | None
    other_ports: tuple[int, int] | None

    def meets(self, another: _Selected) -> bool:
        if None not in (self.protocol, another.protocol) and self.protocol != another.protocol:
            return False
        ports = ((self.one_ports, another.one_ports), (self.other_ports, another.other_ports))
        if any(a is not None and b is not None and (a[0] > b[1] or b[0] > a[1]) for a, b in ports):
            return False
        sides = [(prefix, 0) for prefix in self.other] + [(prefix, 1) for prefix in another.other]
        return (0, 1) in _touching(sides)


def _check_between(drafts: list[Draft], findings: Findings) -> None:
    gateway = drafts[0].left.gateway.name
    selected = [
        _selected(draft, flow, version, swap=draft.left.gateway.name != gateway)
        for draft in drafts
        for flow in draft.flows
        for version in (4, 6)
    ]
    sides = [(prefix, number) for number, each in enumerate(selected) for prefix in each.one]
    for first, second in sorted(_touching(sides)):
        one, other = selected[first], selected[second]
        if one.draft is not other.draft and one.meets(other):
            _report(one.draft, other.draft, findings)


def _selected(draft: Draft, flow: Flow, version: int, *, swap: bool) -> _Selected:
    left, right = _of(flow.left, version), _of(flow.right, version)
    if swap:
        return _Selected(draft, flow.protocol, right, left, flow.right_ports, flow.left_ports)
    return _Selected(draft, flow.protocol, left, right, flow.left_ports, flow.right_ports)


def _of(ends: Sequence[FlowEnd], version: int) -> tuple[IPNetwork, ...]:
    return tuple(end.prefix for end in ends if end.prefix.version == version)


def _touching(prefixes: Iterable[tuple[IPNetwork, int]]) -> set[tuple[int, int]]:
    """Return the pairs of different numbers, the smaller first, whose prefixes share addresses."""
    pairs: set[tuple[int, int]] = set()
    stack: list[tuple[IPNetwork, int]] = []
    for prefix, number in sorted(prefixes, key=lambda p: (p[0].version, p[0].first, p[0].prefixlen)):
        while stack and (stack[-1][0].version != prefix.version or stack[-1][0].last < prefix.first):
            stack.pop()
        pairs.update((min(n, number), max(n, number)) for _, n in stack if n != number)
        stack.append((prefix, number))
    return pairs


def _report(one: Draft, other: Draft, findings: Findings) -> None:
    if findings.first("twins", one.name, other.name):
        summary = (
            f"the tunnels {one.name!r} (line {findings.line(one.where)}) and {other.name!r} join the same "
            "two gateways and would carry the same packets"
        )
        findings.error("IP143", other.where, summary, "remove one of them, or give them flows that differ")
