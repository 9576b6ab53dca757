"""Routing policy rules: which packets look where for a route, before any table that others write to.

A gateway's own networks have rules of their own. What comes out of a tunnel for them, or is forwarded to them
from anywhere, goes by a route that is not a default one, or ends: without that, a gateway that has lost its
LAN would send it by its default route, in clear, to the WAN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from netaddr import IPNetwork

__all__ = [
    "DEFAULT_LENGTHS",
    "HOLDING_TABLE",
    "MAIN_TABLE",
    "OwnNetwork",
    "Rule",
    "RuleKind",
    "own_networks",
    "own_rules",
]

MAIN_TABLE, HOLDING_TABLE = 254, 213
"""Routing tables by number: the kernel's main one, and ours, in which forwarded packets are held."""


class RuleKind(StrEnum):
    """What a routing policy rule is for, in the order in which the kernel meets them.

    The first four are for a gateway's own networks. A rule's ``not`` turns its selector as a whole, so that
    "not the gateway's own packets, and to this network" takes a leap over the rules that say the latter.
    """

    OWN_PACKETS = "own packets"
    """What the gateway itself sends goes on behind the rules for its networks (goto ``BEHIND``)."""
    WAY_HOME = "way home"
    """What is for a network finds the routes of the main table, but none that is as wide as a default one."""
    NO_WAY_HOME = "no way home"
    """What is for a network and has found none is unreachable: it does not follow a default route."""
    BEHIND = "behind"
    """Where ``OWN_PACKETS`` leads; it does nothing."""
    HOLDING = "holding"
    """Forwarded packets are looked up in ``HOLDING_TABLE``."""


_PRIORITIES = {kind: priority for priority, kind in enumerate(RuleKind, start=215)}

DEFAULT_LENGTHS = {4: 7, 6: 15}
"""By family, up to which length a prefix counts as a default route: halves of it and 2000::/3 do, too."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A routing policy rule of ours.

    All stand just before charon's (220, ``charon.routing_table_prio``): what charon leaves in its own table
    when its policies are taken away by hand is not met. ``prefix`` is the network of the two kinds that are
    for one, else ``None``.
    """

    family: int
    kind: RuleKind = RuleKind.HOLDING
    prefix: IPNetwork | None = None

    @property
    def priority(self) -> int:
        return _PRIORITIES[self.kind]

    @property
    def table(self) -> int:
        """The routing table that it looks up, 0 for none."""
        return {RuleKind.HOLDING: HOLDING_TABLE, RuleKind.WAY_HOME: MAIN_TABLE}.get(self.kind, 0)

    @property
    def group(self) -> str:
        """What belongs together, and is made anew together: all that a plan says of it is one change."""
        if self.prefix is not None:
            return f"ipv{self.family} to {self.prefix}"
        return f"ipv{self.family}" + ("" if self.kind is RuleKind.HOLDING else " own packets")

    @property
    def leads_to(self) -> int:
        """The priority at which the rules go on, 0 for the next one."""
        return _PRIORITIES[RuleKind.BEHIND] if self.kind is RuleKind.OWN_PACKETS else 0


@dataclass(frozen=True, order=True, slots=True)
class OwnNetwork:
    """A prefix of a network of a gateway's own site, which a tunnel joins; ``name`` is the network's."""

    prefix: IPNetwork
    name: str

    def __str__(self) -> str:
        return f"{self.name} {self.prefix}".strip()


def own_networks(prefixes: Iterable[IPNetwork], names: Mapping[IPNetwork, str]) -> tuple[OwnNetwork, ...]:
    """Return those of a site's prefixes to which a default route is no way, sorted; ``names`` by prefix.

    One that is itself as wide as a default route (0.0.0.0/0, for a way out to the Internet) is left out.
    """
    own = {OwnNetwork(p, names.get(p, "")) for p in prefixes if p.prefixlen > DEFAULT_LENGTHS[p.version]}
    return tuple(sorted(own))


def own_rules(own: Iterable[OwnNetwork]) -> tuple[Rule, ...]:
    """Return the rules for a gateway's own networks, IPv4 first, in the order in which they are to be made.

    The leap over them comes first, so that what the gateway itself sends is never held.
    """
    rules: list[Rule] = []
    prefixes = sorted({each.prefix for each in own})
    for family in sorted({prefix.version for prefix in prefixes}):
        rules += [Rule(family, kind) for kind in (RuleKind.BEHIND, RuleKind.OWN_PACKETS)]
        for prefix in prefixes:
            if prefix.version == family:
                rules += [Rule(family, kind, prefix) for kind in (RuleKind.WAY_HOME, RuleKind.NO_WAY_HOME)]
    return tuple(rules)
