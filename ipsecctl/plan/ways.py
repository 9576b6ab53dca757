"""The ways into tunnels, desired against observed: interfaces, routes, rules, and what stands in their way.

An interface is ours when it bears our mark (its alias), a route or a rule when it bears our protocol number;
nothing else is changed or removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from ipsecctl.desired import (
    HOLDING_TABLE,
    MAIN_TABLE,
    ROUTES_FILE,
    Interface,
    Route,
    RouteKind,
    Rule,
    RuleKind,
)
from ipsecctl.gateway import (
    Facts,
    Link,
    Record,
    RouteSeen,
    RuleSeen,
    WayHome,
    addresses_of,
    led_astray,
    no_way_out,
)
from ipsecctl.plan.change import Change, Conflict, Fields, Kind, Note, Part, fields
from ipsecctl.plan.reasons import (
    ALTERED,
    BY_HAND,
    CUT_OFF,
    DECLARED,
    NO_LONGER,
    NOT_THERE,
    UNDECLARED,
)
from ipsecctl.plan.wanted import Wanted
from ipsecctl.topology import DataPath

__all__ = [
    "interface_changes",
    "interface_text",
    "route_changes",
    "route_name",
    "rule_changes",
    "way_conflicts",
    "way_home_notes",
    "way_out_notes",
]

_REMADE = "an interface keeps its if_id for life: it is made anew, and its routes with it"
_GOES_TOO = "its interface is made anew"
_LIBIPSEC_DEVICE = "ipsec0"
_CHARONS_TABLE = 220
"""Where charon puts its routes, unless ``charon.routing_table`` says otherwise."""


def interface_text(interface: Interface) -> str:
    """Return what an interface is to be, as a record keeps it."""
    return " ".join(f"{name}={value}" for name, value in _wanted_fields(interface))


def _link_fields(link: Link) -> Fields:
    """Return what an interface is, in the fields of a change."""
    addresses = ", ".join(map(str, link.addresses))
    state = "up" if link.up else "down"
    if_id = {} if link.if_id is None else {"if_id": _hex(link.if_id)}
    return fields(if_id | {"mtu": str(link.mtu), "addresses": addresses, "state": state})


def _wanted_fields(interface: Interface) -> Fields:
    addresses = tuple(sorted(interface.addresses))
    if_id = interface.if_id or None
    return _link_fields(Link(interface.name, interface.kind.value, if_id, interface.mtu, True, addresses))


def _hex(if_id: int | None) -> str:
    return "" if if_id is None else f"{if_id:#x}"


def interface_changes(wanted: Wanted, facts: Facts, record: Record) -> Iterator[Change]:
    """Yield what must change for the interfaces to be as wanted. Others' ones are left alone."""
    for name, interface in wanted.interfaces.items():
        link = facts.ways.links.get(name)
        if link is None or link.ours:
            yield from _interface(wanted.gateway, interface, link, record.interfaces.get(name))
    for link in facts.ways.links.values():
        if link.ours and link.name not in wanted.interfaces and facts.record is not None:
            yield Change(
                wanted.gateway,
                Part.INTERFACE,
                link.name,
                Kind.REMOVE,
                _link_fields(link),
                reasons=(NO_LONGER if link.name in record.interfaces else UNDECLARED,),
            )


def _interface(
    gateway: str, interface: Interface, link: Link | None, recorded: str | None
) -> Iterator[Change]:
    after = _wanted_fields(interface)
    if link is None:
        reason = DECLARED if recorded is None else NOT_THERE if recorded else CUT_OFF
        yield Change(gateway, Part.INTERFACE, interface.name, Kind.CREATE, after=after, reasons=(reason,))
        return
    before = _link_fields(link)
    if before == after:
        return
    by_hand = recorded in (None, interface_text(interface))
    reason = BY_HAND if by_hand else ALTERED if recorded else CUT_OFF
    differ = {name for name, _ in {*before} ^ {*after}}
    yield Change(
        gateway,
        Part.INTERFACE,
        interface.name,
        Kind.CHANGE,
        before=tuple(pair for pair in before if pair[0] in differ),
        after=tuple(pair for pair in after if pair[0] in differ),
        reasons=(reason, _REMADE) if link.if_id != (interface.if_id or None) else (reason,),
    )


# ----------------------------------------------------------------------------------------------------- routes


def route_name(route: Route | RouteSeen, table: int = MAIN_TABLE) -> str:
    """Return what tells a route from others: its prefix, and for one into a tunnel its way and metric.

    To the kernel, a route of another metric is another route. In our table there is one to a prefix.
    """
    if table != MAIN_TABLE:
        return f"{route.prefix} table {table}"
    if not route.interface:
        return str(route.prefix)
    return f"{route.prefix} dev {route.interface} metric {route.metric}"


def _details(route: Route | RouteSeen, table: int = MAIN_TABLE) -> Fields:
    """Return what can be altered of a route."""
    source = {} if route.source is None else {"source": str(route.source)}
    leads = {} if table == MAIN_TABLE else {"leads": f"to {route.interface}" if route.interface else "on"}
    return fields(source | leads | ({"mtu": str(route.mtu)} if route.mtu else {}))


def route_changes(
    wanted: Wanted, facts: Facts, record: Record, *, changes: Callable[[str], bool]
) -> Iterator[Change]:
    """Yield what must change for our routes to be as wanted; ``changes`` says if a file is to be written."""
    lost = bool(record.files.get(ROUTES_FILE)) and not changes(ROUTES_FILE)
    ours = {route_name(route): _details(route) for route in facts.ways.routes if route.ours}
    for seen in facts.ways.held.values():
        ours[route_name(seen, HOLDING_TABLE)] = _details(seen, HOLDING_TABLE)
    remade = _remade(wanted, facts)
    declared = {route_name(route, route.table): route for route in wanted.routes}
    for name, route in declared.items():
        before, after = ours.get(name), _details(route, route.table)
        if before is None:
            reason = NOT_THERE if lost else DECLARED
            yield Change(wanted.gateway, Part.ROUTE, name, Kind.CREATE, after=after, reasons=(reason,))
        elif before != after:
            reason = BY_HAND if lost else ALTERED
            changed = (tuple(sorted({*before} - {*after})), tuple(sorted({*after} - {*before})))
            yield Change(wanted.gateway, Part.ROUTE, name, Kind.CHANGE, *changed, (reason,))
        elif route.interface in remade:
            yield Change(wanted.gateway, Part.ROUTE, name, Kind.CHANGE, reasons=(_GOES_TOO,))
    if facts.record is not None:
        reason = UNDECLARED if lost and ROUTES_FILE in wanted.files else NO_LONGER
        for name in ours.keys() - declared.keys():
            yield Change(wanted.gateway, Part.ROUTE, name, Kind.REMOVE, ours[name], reasons=(reason,))


def _remade(wanted: Wanted, facts: Facts) -> set[str]:
    """Return the interfaces that have to be made anew, because their if_id is another one."""
    links = facts.ways.links
    return {
        name
        for name, interface in wanted.interfaces.items()
        if name in links and links[name].ours and links[name].if_id != (interface.if_id or None)
    }


# ------------------------------------------------------------------------------------------------------ rules


def rule_changes(
    wanted: Wanted, facts: Facts, record: Record, *, changes: Callable[[str], bool]
) -> Iterator[Change]:
    """Yield what must change for our rules to be as wanted; ``changes`` says if a file is to be written."""
    lost = bool(record.files.get(ROUTES_FILE)) and not changes(ROUTES_FILE)
    ours: dict[str, list[RuleSeen]] = {}
    for seen in facts.ways.rules:
        if seen.ours:
            ours.setdefault(seen.group, []).append(seen)
    declared: dict[str, list[Rule]] = {}
    for rule in wanted.rules:
        declared.setdefault(rule.group, []).append(rule)
    for name, rules in declared.items():
        there = ours.pop(name, [])
        after = fields({"rule": ", ".join(_rule_text(rule) for rule in sorted(rules, key=_priority))})
        if not there:
            reason = NOT_THERE if lost else DECLARED
            yield Change(wanted.gateway, Part.RULE, name, Kind.CREATE, after=after, reasons=(reason,))
        elif len(there) != len(rules) or {seen.rule for seen in there} != {*rules}:
            reason = BY_HAND if lost else ALTERED
            yield Change(wanted.gateway, Part.RULE, name, Kind.CHANGE, _rules(there), after, (reason,))
    if facts.record is not None:
        reason = UNDECLARED if lost and ROUTES_FILE in wanted.files else NO_LONGER
        for name, there in ours.items():
            yield Change(wanted.gateway, Part.RULE, name, Kind.REMOVE, _rules(there), reasons=(reason,))


def _priority(rule: Rule) -> int:
    return rule.priority


def _rule_text(rule: Rule) -> str:
    """Return a rule in words, for a person."""
    says = {
        RuleKind.OWN_PACKETS: f"iif lo goto {rule.leads_to}",
        RuleKind.WAY_HOME: f"to {rule.prefix} main table without default routes",
        RuleKind.NO_WAY_HOME: f"to {rule.prefix} unreachable",
        RuleKind.BEHIND: "go on",
        RuleKind.HOLDING: f"not iif lo table {rule.table}",
    }
    return f"{rule.priority}: {says[rule.kind]}"


def _rules(seen: Iterable[RuleSeen]) -> Fields:
    return fields({"rule": ", ".join(f"{rule.priority}: {rule.says}" for rule in seen)})


# -------------------------------------------------------------------------------------------------- ways home


def way_home_notes(wanted: Wanted, facts: Facts) -> Iterator[Note]:
    """Yield which of a gateway's own networks it has no way to: it may come later, so nothing is refused."""
    homes = facts.ways.homes
    for home, what in (
        (WayHome.MISSING, "no route but a default one into its network"),
        (WayHome.NO_LINK, "only a route whose interface has no link into its network"),
    ):
        networks = [network for network in wanted.own if homes.get(network.prefix) is home]
        if networks:
            listed = ", ".join(map(str, networks[:4])) + (
                f" and {len(networks) - 4} more" if len(networks) > 4 else ""
            )
            yield Note(
                f"{wanted.gateway}: {what} {listed}: what tunnels bring for it does not arrive",
                "Bring up the interface, or add the route. If its default route is its way there, say "
                "'one_armed: true' for the gateway.",
            )


# --------------------------------------------------------------------------------------------------- way out


def way_out_notes(wanted: Wanted, facts: Facts, carrying: Iterable[str] = ()) -> Iterator[Note]:
    """Yield what keeps a gateway from sending to its peers: it may come later, so nothing is refused.

    ``carrying`` are the peers with which it has SAs: by whatever interface, the way to them is right.
    """
    own, peers = (
        {address for message in wanted.connections.values() for address in addresses_of(message.get(key, ()))}
        for key in ("local_addrs", "remote_addrs")
    )
    unreached = peers - frozenset(addresses_of(carrying))
    for obstacle in (
        *no_way_out(wanted.gateway, own, peers, facts.way_out),
        *led_astray(wanted.gateway, own, unreached, facts.way_out),
    ):
        yield Note(obstacle.what, obstacle.mend[:1].upper() + obstacle.mend[1:] + ".")


# -------------------------------------------------------------------------------------------------- conflicts


def way_conflicts(wanted: Wanted, facts: Facts, record: Record, runs: DataPath) -> Iterator[Conflict]:
    """Yield what of others' stands in the way; ``runs`` is the data path that charon has."""
    gateway, links = wanted.gateway, facts.ways.links
    for name, interface in wanted.interfaces.items():
        link = links.get(name)
        if link is not None and not link.ours:
            yield Conflict(
                f"{gateway}: there is an interface {name} that ipsecctl did not make",
                f"Remove it (ip link delete {name})"
                + (f", or rename the tunnel '{interface.tunnel}'." if interface.tunnel else "."),
            )
        if interface.if_id:
            yield from _if_id_taken(gateway, interface, links, facts.if_ids, record)
    yield from _others_routes(wanted, facts)
    if any(rule.kind is RuleKind.HOLDING for rule in wanted.rules):
        yield from _table_taken(wanted, facts)
    device = links.get(_LIBIPSEC_DEVICE)
    if device is not None and runs is DataPath.KERNEL and wanted.data_path is DataPath.KERNEL:
        yield Conflict(
            f"{gateway}: there is an interface {_LIBIPSEC_DEVICE}, and the kernel is to carry ESP",
            f"It belongs to a kernel-libipsec of somebody else's, or is left over: remove it (ip link delete "
            f"{_LIBIPSEC_DEVICE}).",
        )


def _if_id_taken(
    gateway: str, interface: Interface, links: Mapping[str, Link], used: Iterable[int], record: Record
) -> Iterator[Conflict]:
    """Yield who else has the if_id of an interface: another's interface, or policies of nobody's we know."""
    number = _hex(interface.if_id)
    hint = (
        f"Give the tunnel '{interface.tunnel}' an if_id of its own ('if_id: NUMBER'), or change the other's."
    )
    holders = [link for link in links.values() if link.if_id == interface.if_id]
    for link in holders:
        if not link.ours:
            yield Conflict(f"{gateway}: {link.name}, which ipsecctl did not make, has if_id {number}", hint)
    known = any(f"if_id={number} " in text or not text for text in record.interfaces.values())
    if not holders and not known and interface.if_id in used:
        yield Conflict(f"{gateway}: IPsec policies that are not ipsecctl's use if_id {number}", hint)


def _others_routes(wanted: Wanted, facts: Facts) -> Iterator[Conflict]:
    """Yield others' routes that would win over ours, or be replaced by one."""
    best: dict[object, Route] = {}
    for route in sorted(wanted.routes, key=lambda route: route.metric, reverse=True):
        if route.kind is RouteKind.INTO:
            best[route.prefix] = route
    for seen in sorted(route for route in facts.ways.routes if not route.ours):
        mine = best.get(seen.prefix)
        if mine is not None and seen.metric <= mine.metric:
            metric = f" (metric {seen.metric})" if seen.metric else ""
            yield Conflict(
                f"{wanted.gateway}: a route to {seen.prefix} that ipsecctl did not make{metric} "
                f"{seen.leads}, not into the tunnel '{mine.tunnel}'",
                f"Remove it, or give it a metric above {mine.metric}; or say 'routes: none' for the tunnel, "
                "if another program is to lead traffic into it.",
            )


def _table_taken(wanted: Wanted, facts: Facts) -> Iterator[Conflict]:
    """Yield who else uses our table or our rules' priority, or has packets find charon's routes first."""
    gateway = wanted.gateway
    families = {rule.family: rule for rule in wanted.rules if rule.kind is RuleKind.HOLDING}
    strangers = facts.ways.strangers
    if strangers:
        more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        yield Conflict(
            f"{gateway}: in routing table {HOLDING_TABLE} there is a route that ipsecctl did not make, to "
            f"{strangers[0].prefix}{more}",
            "Use another table for it: in this one ipsecctl holds what is for tunnels.",
        )
    for seen in facts.ways.rules:
        rule = families.get(seen.family)
        if rule is None or seen.ours:
            continue
        what = f"{gateway}: a rule for IPv{seen.family} that ipsecctl did not make"
        text = f"{what} ('{seen.priority}: {seen.says}')"
        if seen.table == rule.table:
            yield Conflict(
                f"{text} looks up routing table {rule.table}",
                "Remove it, or have it use another table: in that one ipsecctl holds what is for tunnels.",
            )
        elif seen.priority == rule.priority:
            # No command here: by its priority alone ours would be deleted.
            yield Conflict(
                f"{text} has the priority of the one that holds what is for tunnels",
                f"Give it another priority than {rule.priority}.",
            )
        elif seen.table == _CHARONS_TABLE and seen.priority < rule.priority:
            yield Conflict(
                f"{gateway}: charon's routes are looked up with priority {seen.priority}, before those "
                f"that hold what is for tunnels ({rule.priority})",
                "Take routing_table_prio out of strongswan.conf, or make it 220 or more, and restart charon.",
            )
