"""The ways into tunnels as a gateway has them: interfaces that may be ours, and the routes that concern ours.

``parse_ways`` reads what a script (_network_script.py) prints of them. Source: the JSON of
``ip -j -d address`` (one object for each interface, empty ones for those that a filter leaves out) and of
``ip -j -N rule``, and the lines of ``ip -o -N route``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from netaddr import AddrFormatError, IPAddress, IPNetwork

from ipsecctl.desired import DEFAULT_LENGTHS, Rule, RuleKind
from ipsecctl.gateway.names import LINK_ALIAS, ROUTE_PROTOCOL
from ipsecctl.gateway.way_home import WayHome, ways_home

__all__ = [
    "Link",
    "RouteSeen",
    "RuleSeen",
    "WaysSeen",
    "addresses",
    "parse_ways",
    "routes_listed",
    "rules_listed",
]

XFRM: Final = "xfrm"
_KINDS: Final = (XFRM, "dummy")
"""Of our interfaces: those of tunnels, and the one that leads nowhere."""
_KERNELS_RULES: Final = (0, 32766, 32767)
"""Priorities of the rules that are there from the start: tables local, main and default."""
_KINDS_OF_RULES: Final = {Rule(4, kind).priority: kind for kind in RuleKind}
_UNREACHABLE: Final = ("7", "unreachable")
"""The type of a rule as ``ip -j -N rule`` has it, and as it may be told without ``-N``."""
_KINDS_OF_ROUTES: Final = {
    "1": "unicast",
    "2": "local",
    "3": "broadcast",
    "4": "anycast",
    "5": "multicast",
    "6": "blackhole",
    "7": "unreachable",
    "8": "prohibit",
    "9": "throw",
}
"""The types of routes as ``ip -N`` has them (``RTN_*`` of linux/rtnetlink.h)."""


@dataclass(frozen=True, order=True, slots=True)
class Link:
    """An interface: ``kind`` as ``ip -d link`` has it, "" where only its name is known.

    ``if_id`` is an xfrm interface's, else ``None``; ``mtu`` in bytes. ``addresses`` have their host bits and
    are sorted; those that the kernel makes for the link alone are left out. ``ours`` tells whether it bears
    our mark.
    """

    name: str
    kind: str = ""
    if_id: int | None = None
    mtu: int = 0
    up: bool = False
    addresses: tuple[IPNetwork, ...] = ()
    ours: bool = False


@dataclass(frozen=True, order=True, slots=True)
class RouteSeen:
    """A route of the main table, or of ours.

    ``kind`` is ``unicast``, ``unreachable`` and so on; ``interface`` is "" for one that leads nowhere, or by
    several ways; ``via`` the next hop as ``ip`` prints it. ``metric`` 0 is what IPv4 has where none is told,
    ``mtu`` 0 that the route itself limits nothing. ``ours`` tells whether it bears our mark, ``no_link``
    whether no interface that it leads to has a link.
    """

    prefix: IPNetwork
    kind: str = "unicast"
    interface: str = ""
    metric: int = 0
    source: IPAddress | None = None
    via: str = ""
    ours: bool = False
    mtu: int = 0
    no_link: bool = False

    @property
    def leads(self) -> str:
        """Where it leads, in words."""
        if self.kind != "unicast":
            return f"is {self.kind}"
        if self.via:
            return f"goes via {self.via} ({self.interface})"
        return f"goes to {self.interface}" if self.interface else "goes by several next hops"


@dataclass(frozen=True, order=True, slots=True)
class RuleSeen:
    """A routing policy rule of a family: ``says`` are its selector and action in words, for a person.

    ``table`` is 0 where it looks nothing up. ``ours`` tells whether it bears our mark; ``rule`` is the one
    that it is, mark included, of those that we make, else ``None``. ``prefix`` is what it is for alone.
    """

    family: int
    priority: int
    says: str
    table: int = 0
    ours: bool = False
    rule: Rule | None = None
    prefix: IPNetwork | None = None

    @property
    def group(self) -> str:
        """What it belongs to of ours: see ``Rule.group``."""
        if self.prefix is not None:
            return f"ipv{self.family} to {self.prefix}"
        return f"ipv{self.family}" + (" own packets" if {"goto", "nop"} & {*self.says.split()} else "")


@dataclass(frozen=True, slots=True)
class WaysSeen:
    """What is on a gateway: xfrm and dummy interfaces by name, names like ours or charon's, routes, rules.

    ``routes`` are of the main table, ``held`` those of ours that bear our mark, by prefix, ``strangers`` the
    others in it. ``rules`` are all but the three that the kernel makes. ``connected`` are the networks that
    the gateway is joined to, sorted; those that the kernel makes for a link alone are left out. ``homes``
    says by network of the gateway's own site how it is reached, of those that were asked for.
    """

    links: Mapping[str, Link] = field(default_factory=dict)
    routes: frozenset[RouteSeen] = frozenset()
    held: Mapping[IPNetwork, RouteSeen] = field(default_factory=dict)
    strangers: tuple[RouteSeen, ...] = ()
    rules: tuple[RuleSeen, ...] = ()
    connected: tuple[IPNetwork, ...] = ()
    homes: Mapping[IPNetwork, WayHome] = field(default_factory=dict)


def parse_ways(told: Mapping[str, Iterable[str]]) -> WaysSeen:
    """Return what the script told, by the first word of its lines.

    These are documents of interfaces (``links``), names of interfaces (``link``), lines of routes (``route``
    of the main table, ``held`` of ours, ``connected``), and documents of rules behind their family
    (``rules``); and the gateway's own networks (``own``) with routes to them (``toward``) and all addresses
    (``at``). What cannot be read is left out: a name stands for its interface then.
    """
    found = {name: Link(name) for name in told.get("link", ())}
    for text in told.get("links", ()):
        found |= {link.name: link for link in _links(text)}
    in_ours = tuple(_routes(told.get("held", ())))
    joined = {r.prefix for r in _routes(told.get("connected", ())) if r.kind == "unicast" and not r.via}
    return WaysSeen(
        found,
        frozenset(_routes(told.get("route", ()))),
        held={route.prefix: route for route in in_ours if route.ours},
        strangers=tuple(sorted(route for route in in_ours if not route.ours)),
        rules=tuple(sorted(rule for listed in rules_listed(told) for rule in _rules(*listed))),
        connected=tuple(sorted(p for p in joined if not (p.ip.is_link_local() or p.ip.is_multicast()))),
        homes=ways_home(
            _networks(told.get("own", ())),
            _routes(told.get("toward", ())),
            (network for name, network in addresses(told) if name == "lo"),
        ),
    )


def routes_listed(told: Mapping[str, Iterable[str]]) -> bool:
    """Whether the script told all routes of both families."""
    return {"4", "6"} <= {*told.get("told", ())}


def addresses(told: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, IPNetwork]]:
    """Yield the addresses that the script told, with their prefix lengths, and whose they are."""
    for line in told.get("at", ()):
        name, _, text = line.partition(" ")
        for network in _networks((text,)):
            yield name.partition("@")[0], network


def _networks(lines: Iterable[str]) -> Iterable[IPNetwork]:
    for line in lines:
        try:
            yield IPNetwork(line)
        except (AddrFormatError, ValueError):
            continue


def _routes(lines: Iterable[str]) -> Iterable[RouteSeen]:
    return (route for line in lines if (route := _route(line)))


def rules_listed(told: Mapping[str, Iterable[str]]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield each family with its rules, as ``ip -j -N rule`` tells them; none of which cannot be read."""
    for text in told.get("rules", ()):
        family, _, document = text.partition(" ")
        try:
            rules = json.loads(document)
        except ValueError:
            continue
        if isinstance(rules, list) and all(isinstance(rule, dict) for rule in rules):
            yield int(family), rules


def _rules(family: int, entries: Iterable[dict[str, Any]]) -> Iterable[RuleSeen]:
    with suppress(ValueError, KeyError, TypeError):
        for entry in entries:
            if entry["priority"] not in _KERNELS_RULES:
                yield _rule(family, dict(entry))


def _rule(family: int, entry: dict[str, Any]) -> RuleSeen:
    priority = int(entry.pop("priority"))
    ours = entry.pop("protocol", "") == ROUTE_PROTOCOL
    entry.pop("unresolved", None)  # said of a leap while the rule to which it leads is missing
    words = (f"{name} {value}".removesuffix(" None") for name, value in entry.items() if value != "all")
    prefix = (
        IPNetwork(f"{entry['dst']}/{entry['dstlen']}" if "dstlen" in entry else entry["dst"])
        if ("dst" in entry and entry["dst"] != "all")
        else None
    )
    rule = _which(family, priority, prefix, entry) if ours else None
    return RuleSeen(family, priority, " ".join(words), _whole(entry.get("table")) or 0, ours, rule, prefix)


def _which(family: int, priority: int, prefix: IPNetwork | None, entry: Mapping[str, Any]) -> Rule | None:
    """Return which of our rules this is, ``None`` when it is none of them to the word."""
    kind = _KINDS_OF_RULES.get(priority)
    if kind is None or (prefix is None) is (kind in (RuleKind.WAY_HOME, RuleKind.NO_WAY_HOME)):
        return None
    rule = Rule(family, kind, prefix)
    said = {name: value for name, value in entry.items() if name not in ("src", "dst", "dstlen")}
    if entry.get("src") != "all":
        return None
    if said.get("action") in _UNREACHABLE:
        said["action"] = "unreachable"
    return rule if said == _as_told(rule) else None


def _as_told(rule: Rule) -> dict[str, object]:
    """Return a rule beside priority, mark and addresses as ``ip -j -N rule`` has it."""
    match rule.kind:
        case RuleKind.OWN_PACKETS:
            return {"iif": "lo", "goto": rule.leads_to}
        case RuleKind.WAY_HOME:
            return {"table": str(rule.table), "suppress_prefixlen": DEFAULT_LENGTHS[rule.family]}
        case RuleKind.NO_WAY_HOME:
            return {"action": "unreachable"}
        case RuleKind.BEHIND:
            return {"nop": None}
        case RuleKind.HOLDING:
            return {"not": None, "iif": "lo", "table": str(rule.table)}


def _links(text: str) -> Iterable[Link]:
    try:
        document = json.loads(text or "[]")
    except ValueError:
        return
    for entry in document if isinstance(document, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("ifname"), str):
            yield _link(entry)


def _link(entry: Mapping[str, Any]) -> Link:
    info = entry.get("linkinfo") or {}
    kind = str(info.get("info_kind", ""))
    mtu, alias = entry.get("mtu"), str(entry.get("ifalias", ""))
    return Link(
        name=entry["ifname"],
        kind=kind,
        if_id=_whole((info.get("info_data") or {}).get("if_id")) if kind == XFRM else None,
        mtu=mtu if isinstance(mtu, int) else 0,
        up="UP" in entry.get("flags", ()),
        addresses=tuple(sorted(_addresses(entry.get("addr_info") or ()))),
        ours=kind in _KINDS and alias.partition(" ")[0] == LINK_ALIAS,
    )


def _addresses(entries: Iterable[Mapping[str, Any]]) -> Iterable[IPNetwork]:
    for entry in entries:
        if entry.get("scope") != "link" and "local" in entry:
            yield IPNetwork(f"{entry['local']}/{entry['prefixlen']}")


def _whole(value: object) -> int | None:
    try:
        return int(str(value), 0)
    except ValueError:
        return None


def _route(line: str) -> RouteSeen | None:
    """Return the route in a line of ``ip -o -N route``, ``None`` when there is none in it."""
    words = line.partition("\\")[0].split()
    kind = "unicast"
    if words and not (words[0] == "default" or "." in words[0] or ":" in words[0]):
        kind = _KINDS_OF_ROUTES.get(words[0], words[0])
        del words[0]
    if not words:
        return None
    said = dict(pairwise(words[1:]))
    try:
        return RouteSeen(
            prefix=_prefix(words[0], line),
            kind=kind,
            interface=said.get("dev", "") if kind == "unicast" else "",
            metric=int(said.get("metric", 0)),
            source=IPAddress(said["src"]) if "src" in said else None,
            via=said.get("via", ""),
            ours=said.get("proto") == ROUTE_PROTOCOL,
            mtu=int(said.get("mtu", 0)),
            no_link=_no_link(line),
        )
    except (AddrFormatError, ValueError):
        return None


def _no_link(line: str) -> bool:
    """Whether a route's interface, or each of its next hops', has no link or is down."""
    ways = line.split("nexthop ")[1:] or [line]
    return all({"linkdown", "dead"} & {*way.split()} for way in ways)


def _prefix(word: str, line: str) -> IPNetwork:
    if word != "default":
        return IPNetwork(word)
    # Only IPv6 routes are told with a preference.
    return IPNetwork("::/0" if " pref " in line else "0.0.0.0/0")
