"""Flows as children: names, traffic selectors, and the pairs of prefixes that a firewall must guard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

from netaddr import IPNetwork

from ipsecctl.desired.state import TrafficSelector
from ipsecctl.topology import ChildPer, Flow, FlowEnd, Tunnel

__all__ = ["ChildPlan", "GuardedPair", "minimal", "plan_children"]

DEFAULT_FLOW = "all"
"""The name of the one flow of a tunnel that declares none; its child bears the tunnel's own name."""

_EVERYTHING = {4: IPNetwork("0.0.0.0/0"), 6: IPNetwork("::/0")}


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """A child as both ends share it: its name, and the selectors at the left and at the right end."""

    name: str
    left: tuple[TrafficSelector, ...]
    right: tuple[TrafficSelector, ...]


@dataclass(frozen=True, order=True, slots=True)
class GuardedPair:
    """Prefixes of one family at the left and at the right end between which nothing may pass in clear."""

    family: int
    left: tuple[IPNetwork, ...]
    right: tuple[IPNetwork, ...]


def minimal(prefixes: Iterable[IPNetwork]) -> tuple[IPNetwork, ...]:
    """Return the prefixes sorted, without those that another of them contains."""
    candidates = tuple(prefixes)
    return candidates if len(candidates) < 2 else _minimal(candidates)


@lru_cache(maxsize=1024)  # every spoke of a hub asks for the hub's
def _minimal(prefixes: tuple[IPNetwork, ...]) -> tuple[IPNetwork, ...]:
    kept: list[IPNetwork] = []
    # A prefix that contains others sorts before them, and right before them among those that are kept.
    for prefix in sorted(prefixes, key=_prefix_order):
        if not kept or prefix not in kept[-1]:
            kept.append(prefix)
    return tuple(kept)


def plan_children(tunnel: Tunnel) -> tuple[tuple[ChildPlan, ...], tuple[GuardedPair, ...]]:
    """Return the children of a tunnel, sorted by name, and what the firewalls at both its ends must guard.

    There is one child for each flow (IPv4 and IPv6 together), or one for each pair of subnets of each flow,
    as ``tunnel.child_per`` says. Guarded are all prefixes that the flows join, whatever the protocol.
    Prefixes that have no partner of their family at the other end take no part. With ``any_selectors`` there
    is one child for everything of the families that the flows have.
    """
    joined = [(flow, _joined(flow)) for flow in tunnel.flows]
    if tunnel.any_selectors:
        families = {pair.family for _, pairs in joined for pair in pairs}
        everything = tuple(TrafficSelector(_EVERYTHING[family]) for family in sorted(families))
        children = [ChildPlan(tunnel.name, everything, everything)]
    elif tunnel.child_per is ChildPer.FLOW:
        children = [_child_of_flow(tunnel, flow, pairs) for flow, pairs in joined if pairs]
    else:
        children = [child for flow in tunnel.flows for child in _children_of_subnets(tunnel, flow)]
    guarded = [pair for _, pairs in joined for pair in pairs]
    return (
        _with_unique_names(sorted(children, key=lambda child: (child.name, child.left, child.right))),
        tuple(guarded) if len(tunnel.flows) == 1 else tuple(sorted(set(guarded))),
    )


def _joined(flow: Flow) -> list[GuardedPair]:
    """Return the prefixes that a flow joins, a pair for each family that both its ends have."""
    pairs = []
    for family in (4, 6):
        left = [end.prefix for end in flow.left if end.prefix.version == family]
        right = [end.prefix for end in flow.right if end.prefix.version == family]
        if left and right:
            pairs.append(GuardedPair(family, minimal(left), minimal(right)))
    return pairs


def _child_of_flow(tunnel: Tunnel, flow: Flow, pairs: Iterable[GuardedPair]) -> ChildPlan:
    left = [prefix for pair in pairs for prefix in pair.left]
    right = [prefix for pair in pairs for prefix in pair.right]
    return ChildPlan(_flow_name(tunnel, flow), *_selectors(flow, left, right))


def _children_of_subnets(tunnel: Tunnel, flow: Flow) -> Iterator[ChildPlan]:
    pairs = [
        (left, right)
        for left in sorted(set(flow.left), key=_end_order)
        for right in sorted(set(flow.right), key=_end_order)
        if left.prefix.version == right.prefix.version
    ]
    names = [f"{_flow_name(tunnel, flow)}-{left.network}-{right.network}" for left, right in pairs]
    total, seen = Counter(names), Counter[str]()
    for name, (left, right) in zip(names, pairs, strict=True):
        seen[name] += 1
        numbered = f"{name}-{seen[name]}" if total[name] > 1 else name
        yield ChildPlan(numbered, *_selectors(flow, [left.prefix], [right.prefix]))


def _flow_name(tunnel: Tunnel, flow: Flow) -> str:
    """Return what the children of a flow are called after.

    It does not depend on the other flows: were one added or removed, the children of the rest would bear
    other names, and charon makes no SA of another name beside one that is the same otherwise.
    """
    return tunnel.name if flow.name == DEFAULT_FLOW else f"{tunnel.name}-{flow.name}"


def _selectors(
    flow: Flow, left: Sequence[IPNetwork], right: Sequence[IPNetwork]
) -> tuple[tuple[TrafficSelector, ...], tuple[TrafficSelector, ...]]:
    return (
        tuple(TrafficSelector(prefix, flow.protocol, flow.left_ports) for prefix in left),
        tuple(TrafficSelector(prefix, flow.protocol, flow.right_ports) for prefix in right),
    )


def _with_unique_names(plans: Sequence[ChildPlan]) -> tuple[ChildPlan, ...]:
    """Number what bears one name by accident: networks ``a-b``, ``c`` and ``a``, ``b-c`` when joined."""
    total = Counter(plan.name for plan in plans)
    if len(total) == len(plans):
        return tuple(plans)
    unique, taken = [], {name for name in total if total[name] == 1}
    for plan in plans:
        name = plan.name
        if total[name] > 1:
            name = next(numbered for n in count(1) if (numbered := f"{plan.name}-{n}") not in taken)
            taken.add(name)
        unique.append(ChildPlan(name, plan.left, plan.right))
    return tuple(unique)


def _prefix_order(prefix: IPNetwork) -> tuple[int, int, int]:
    return prefix.version, prefix.first, prefix.prefixlen


def _end_order(end: FlowEnd) -> tuple[str, tuple[int, int, int]]:
    return end.network, _prefix_order(end.prefix)
