"""The way into a tunnel at one end: what it must be, what was seen of it, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from netaddr import IPNetwork

from ipsecctl.desired import HOLDING_TABLE, Interface, OwnNetwork, Route, Rule, RuleKind
from ipsecctl.gateway import Link, RouteSeen, WayHome, WaysSeen
from ipsecctl.topology import HOLDING_INTERFACE, Mode

__all__ = ["Way", "WayView", "cut_off", "lost_homes", "rewritten_note", "view_way", "way_causes"]

_APPLY = "apply the topology"
_LEAP = (RuleKind.OWN_PACKETS, RuleKind.BEHIND)


@dataclass(frozen=True, slots=True)
class Way:
    """How packets must enter a tunnel at one end: by policies, or through an interface to which routes lead.

    ``far`` are the networks behind the other end. In policy mode where the kernel carries ESP, ``held`` are
    the routes of our table to them. ``rules`` are those by which packets find these, and those for the
    networks that the tunnel joins at this end. Of these ``own`` are the ones to which a way home is needed,
    ``all_own`` says whether there are no others.
    """

    mode: Mode
    interface: Interface | None = None
    routes: tuple[Route, ...] = ()
    far: tuple[IPNetwork, ...] = ()
    held: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    own: tuple[OwnNetwork, ...] = ()
    all_own: bool = False


@dataclass(frozen=True, slots=True)
class WayView:
    """What was seen of a way: ``link`` is its interface, ``None`` when that is not there.

    ``missing`` are the routes into it that are not there; ``stolen`` pairs of a prefix and the route of
    somebody else's that is better than ours. In policy mode ``link`` is the interface on which packets are
    held, ``missing`` are routes of our table, ``altered`` pairs of one of these and what is there instead,
    and in any mode ``unruled`` the rules that are missing. ``homes`` says how each network of its own is
    reached, as far as that is known. ``known`` is false where nobody could look.
    """

    mode: Mode
    interface: str = ""
    link: Link | None = None
    missing: tuple[Route, ...] = ()
    stolen: tuple[tuple[IPNetwork, RouteSeen], ...] = ()
    altered: tuple[tuple[Route, RouteSeen], ...] = ()
    unruled: tuple[Rule, ...] = ()
    homes: tuple[tuple[OwnNetwork, WayHome], ...] = ()
    known: bool = False


def view_way(way: Way, seen: WaysSeen | None) -> WayView:
    """Return what was seen of a way on its gateway, ``seen`` ``None`` when nothing could be."""
    view = _view_held(way, seen) if way.interface is None else _view_interface(way, way.interface.name, seen)
    if seen is None:
        return view
    there = {rule.rule for rule in seen.rules}
    return replace(
        view,
        unruled=tuple(rule for rule in way.rules if rule not in there),
        homes=tuple((own, seen.homes[own.prefix]) for own in way.own if own.prefix in seen.homes),
    )


def _view_interface(way: Way, name: str, seen: WaysSeen | None) -> WayView:
    if seen is None:
        return WayView(way.mode, name)
    there = {(route.prefix, route.interface) for route in seen.routes}
    best = {route.prefix: route.metric for route in way.routes}
    return WayView(
        way.mode,
        name,
        seen.links.get(name),
        missing=tuple(r for r in way.routes if (r.prefix, r.interface) not in there),
        stolen=tuple(
            (route.prefix, route)
            for route in sorted(seen.routes)
            if not route.ours and route.prefix in best and route.metric <= best[route.prefix]
        ),
        known=True,
    )


def _view_held(way: Way, seen: WaysSeen | None) -> WayView:
    """Return what was seen of that on which packets are held that no policy takes."""
    if seen is None or not way.held:
        return WayView(way.mode, known=seen is not None or not (way.held or way.rules))
    there = [(route, seen.held.get(route.prefix)) for route in way.held]
    return WayView(
        way.mode,
        link=seen.links.get(HOLDING_INTERFACE),
        missing=tuple(route for route, found in there if found is None),
        altered=tuple(
            (route, found)
            for route, found in there
            if found is not None and (found.interface, found.mtu) != (route.interface, route.mtu)
        ),
        known=True,
    )


def way_causes(gateway: str, way: Way, view: WayView) -> Iterator[str]:
    """Yield what is wrong with a way, each with how to mend it; nothing where nobody could look."""
    if not view.known:
        return
    if way.interface is None:
        yield from _held_causes(gateway, way, view)
    else:
        yield from _interface_causes(gateway, way.interface, view)
    yield from _rule_causes(gateway, view.unruled)
    yield from _home_causes(gateway, view)


def _interface_causes(gateway: str, interface: Interface, view: WayView) -> Iterator[str]:
    link, name = view.link, interface.name
    if link is None:
        yield f"{gateway}: its interface {name} is not there: {_APPLY}"
    elif link.if_id is None:
        yield f"{gateway}: {name} is not an xfrm interface: remove it (ip link delete {name}), and {_APPLY}"
    elif link.if_id != interface.if_id:
        what = f"has if_id {link.if_id:#x} instead of {interface.if_id:#x}"
        yield f"{gateway}: its interface {name} {what}, and carries nothing: {_APPLY}"
    else:
        if not link.up:
            yield f"{gateway}: its interface {name} is down: ip link set {name} up, or {_APPLY}"
        if link.mtu != interface.mtu:
            what = f"has an MTU of {link.mtu} instead of {interface.mtu} bytes"
            yield f"{gateway}: its interface {name} {what}: {_APPLY}"
    # Without its interface there can be no routes: one cause is enough.
    if link is not None and link.up and view.missing:
        prefixes = ", ".join(str(route.prefix) for route in view.missing)
        yield f"{gateway}: no route leads {prefixes} into it: {_APPLY}"
    for prefix, route in view.stolen:
        metric = f"metric {route.metric}" if route.metric else "no metric"
        yield (
            f"{gateway}: another route to {prefix} ({metric}) {route.leads}, not into it: remove that, or "
            "give it a metric above ours"
        )


def _held_causes(gateway: str, way: Way, view: WayView) -> Iterator[str]:
    if not way.held:
        return
    link, table = view.link, f"routing table {HOLDING_TABLE}"
    if link is None:
        yield f"{gateway}: its interface {HOLDING_INTERFACE} is not there: {_APPLY}"
    elif not link.up:
        yield (
            f"{gateway}: its interface {HOLDING_INTERFACE} is down: ip link set {HOLDING_INTERFACE} up, and "
            f"{_APPLY}"
        )
    elif view.missing:
        prefixes = _listed(route.prefix for route in view.missing)
        yield f"{gateway}: {table} does not hold {prefixes} while the tunnel is down: {_APPLY}"
    for route, found in view.altered:
        if found.interface != route.interface:
            yield f"{gateway}: in {table} {route.prefix} is no route to {route.interface}: {_APPLY}"
        else:
            what = f"has an MTU of {found.mtu or 'its own'} instead of {route.mtu} bytes"
            yield f"{gateway}: in {table} the route to {route.prefix} {what}: {_APPLY}"


def _rule_causes(gateway: str, unruled: Iterable[Rule]) -> Iterator[str]:
    """Yield which of our rules are missing."""
    unruled = tuple(unruled)
    for rule in unruled:
        if rule.kind is RuleKind.HOLDING:
            yield (
                f"{gateway}: the rule that has forwarded IPv{rule.family} packets looked up in routing table "
                f"{HOLDING_TABLE} is not there, or is another one: {_APPLY}"
            )
    for family in sorted({rule.family for rule in unruled if rule.kind in _LEAP}):
        yield (
            f"{gateway}: the rules by which its own IPv{family} packets pass over those for its networks are "
            f"not there, or are others: {_APPLY}"
        )
    if networks := _unheld(unruled):
        yield (
            f"{gateway}: the rules that keep what is for {_listed(networks)} from following a default route "
            f"are not there, or are others: {_APPLY}"
        )


def _unheld(unruled: Iterable[Rule]) -> set[IPNetwork]:
    """Return the networks for which a rule is missing."""
    return {rule.prefix for rule in unruled if rule.prefix is not None}


def _home_causes(gateway: str, view: WayView) -> Iterator[str]:
    leaking = _unheld(view.unruled)
    missing = [own for own, home in view.homes if home is WayHome.MISSING]
    for networks, lacks, becomes in (
        ([n for n in missing if n.prefix in leaking], "no route", "follows a default route, in clear"),
        ([n for n in missing if n.prefix not in leaking], "no route", "is held"),
        (
            [own for own, home in view.homes if home is WayHome.NO_LINK],
            "only a route whose interface has no link",
            "is lost",
        ),
    ):
        if networks:
            what, it = ("network", "it") if len(networks) == 1 else ("networks", "them")
            yield (
                f"{gateway}: {lacks} into its {what} {_shortened([str(n) for n in networks])}: what comes "
                f"out of the tunnel for {it} {becomes}"
            )


def lost_homes(gateway: str, way: Way, seen: WaysSeen) -> tuple[str, ...]:
    """Return as causes to which of its own networks a tunnel's end has no way, where all rules are set."""
    homes = tuple((own, seen.homes[own.prefix]) for own in way.own if own.prefix in seen.homes)
    return tuple(_home_causes(gateway, WayView(way.mode, homes=homes)))


def cut_off(way: Way, view: WayView) -> bool:
    """Return whether none of the networks that a tunnel joins at an end is reached there: nothing arrives."""
    lost = [own for own, home in view.homes if home is not WayHome.THERE]
    return way.all_own and bool(lost) and len(lost) == len(way.own)


def rewritten_note(gateway: str, way: Way, rewritten: int | None) -> Iterator[str]:
    """Yield that something changes packets' addresses on a gateway, so that no policy fits them."""
    if way.mode is Mode.POLICY and rewritten:
        packets = "1 packet" if rewritten == 1 else f"{rewritten} packets"
        yield (
            f"{gateway}: {packets} for tunnels were changed by NAT on this gateway, and held back: exempt "
            f"{_listed(way.far)} from masquerading there"
        )


def _listed(prefixes: Iterable[IPNetwork]) -> str:
    return _shortened([str(prefix) for prefix in sorted(set(prefixes))])


def _shortened(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - 4} more" if len(texts) > 5 else ""
    return ", ".join(texts[:4] if more else texts) + more
