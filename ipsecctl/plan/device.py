"""charon's own data path, desired against observed: its device, the rule that leads there, its routes.

All three are charon's. A device that is down is set up, and charon brings its routes back then; a rule that
is missing is made as charon makes it. Routes that are missing for another reason come back with the policies
of their connections only, and the device itself with charon's start. Routes that cannot be set, as with IPv6
switched off, are left alone: a CHILD_SA that is ended for them would not come back, with all that it carries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any, TypeAlias

from netaddr import IPNetwork

from ipsecctl.desired import Action
from ipsecctl.gateway import CHARONS_TABLE, DEVICE, Device, Observed, Obstacle, bars
from ipsecctl.gateway.barred import bars_nothing
from ipsecctl.gateway.device import DOWN
from ipsecctl.plan.change import Change, Kind, Note, Part, fields
from ipsecctl.plan.connections import child_pairs, remote_networks
from ipsecctl.plan.reasons import Drift
from ipsecctl.plan.wanted import Wanted
from ipsecctl.topology import DataPath

__all__ = [
    "GONE",
    "barred",
    "barred_notes",
    "device_changes",
    "device_gone",
    "rule_of",
    "unroutable",
    "unrouted",
    "unrouted_children",
]

Missing: TypeAlias = Mapping[str, Set[str]]
"""By connection, children."""

GONE = f"its device {DEVICE}, which is gone"
"""For what charon must be restarted then."""

_DOWN = Drift("charon's device is down, and nothing passes; set up, it gets its routes back from charon")
_NO_RULE = Drift("charon made it when it started, and without it packets do not find its routes")


def device_changes(wanted: Wanted, observed: Observed) -> Iterator[Change]:
    """Yield what must be done for packets to find their way into charon's device."""
    device = _device(wanted, observed)
    if device is None or not device.there:
        return
    if not device.up:
        before, after = fields({"state": "down"}), fields({"state": "up"})
        yield Change(wanted.gateway, Part.DEVICE, DEVICE, Kind.CHANGE, before, after, (_DOWN,))
    far = {network.version for message in wanted.connections.values() for network in remote_networks(message)}
    for family in sorted(device.unruled & far):
        after = fields({"rule": f"{CHARONS_TABLE}: from all lookup {device.table(family)}"})
        name = _rule_name(family, device)
        yield Change(wanted.gateway, Part.DEVICE, name, Kind.CREATE, after=after, reasons=(_NO_RULE,))


def _rule_name(family: int, device: Device) -> str:
    return f"rule ipv{family} {CHARONS_TABLE} lookup {device.table(family)}"


def rule_of(change: Change) -> tuple[str, str, str] | None:
    """Return family (4, 6), priority and table of the rule that a change makes, ``None`` for another one."""
    kind, _, rest = change.name.partition(" ipv")
    if change.part is not Part.DEVICE or kind != "rule":
        return None
    family, priority, _, table = rest.split()
    return family, priority, table


def device_gone(wanted: Wanted, observed: Observed) -> bool:
    """Whether charon's device is gone from under it: nothing passes until charon is started again."""
    device = _device(wanted, observed)
    return device is not None and not device.there


def unrouted(wanted: Wanted, observed: Observed, missing: Missing | None = None) -> frozenset[str]:
    """Return the connections, those that charon has, whose routes into its device are not there and can be.

    The routes of a CHILD_SA, or of a trap: without SAs no other end's traps are known to be there. One that
    carries something in a CHILD_SA whose routes could not be set anew is not among them. A trap has
    those that it was applied with: a network that is only now declared behind the far end has none yet.
    ``missing`` is what ``unrouted_children`` says, where that is known.
    """
    found = set()
    missing = unrouted_children(wanted, observed) if missing is None else missing
    carrying = {*_installed(observed)} - {(sa.tunnel, sa.child) for sa in observed.not_in_kernel if sa.dead}
    for name, children in missing.items():
        hopeless = unroutable(wanted, observed, name)
        if children - hopeless.keys() and not any((name, child) in carrying for child in hopeless):
            found.add(name)
    return frozenset(found)


def barred(
    wanted: Wanted, observed: Observed, *, idle: bool = True, missing: Missing | None = None
) -> dict[str, tuple[Obstacle, ...]]:
    """Return by connection what keeps routes that are missing from coming back, or from being set at all.

    Also for a child that has no SA (``idle``): none can come up, unless a trap of before still has them.
    """
    found: dict[str, tuple[Obstacle, ...]] = {}
    missing = unrouted_children(wanted, observed) if missing is None else missing
    there = {*_installed(observed)}
    for name in sorted(wanted.connections):
        hopeless = unroutable(wanted, observed, name)
        concerned = missing.get(name, frozenset()) | {
            child for child in hopeless if idle and (name, child) not in there
        }
        obstacles = {bar for child in concerned & hopeless.keys() for bar in hopeless[child]}
        if obstacles:
            found[name] = tuple(sorted(obstacles))
    return found


def barred_notes(found: Mapping[str, tuple[Obstacle, ...]]) -> Iterator[Note]:
    """Yield what keeps routes from coming back, and the connections with them as they are (``barred``)."""
    for obstacles in found.values():
        for obstacle in obstacles:
            yield Note(obstacle.what, obstacle.mend[:1].upper() + obstacle.mend[1:] + ".")


def unroutable(wanted: Wanted, observed: Observed, name: str) -> dict[str, tuple[Obstacle, ...]]:
    """Return by child of a connection what keeps its routes from being set, of those that something does."""
    device, version = _device(wanted, observed), observed.charon.version_numbers or None
    if bars_nothing(device, version):
        return {}  # the rule, and there may be thousands of connections
    children = wanted.connections.get(name, {}).get("children", {})
    found = {
        child: bars(wanted.gateway, device, version, sorted(child_pairs(message)))
        for child, message in children.items()
    }
    return {child: obstacles for child, obstacles in found.items() if obstacles}


def unrouted_children(wanted: Wanted, observed: Observed) -> Missing:
    """Return by connection, those that charon has, the children whose routes are not there."""
    device = _device(wanted, observed)
    routes = observed.facts.in_kernel.on(observed.data_path).routes
    if device is None or device.lacks == DOWN or routes is None:
        return {}
    applied = observed.facts.record.messages if observed.facts.record is not None else {}
    found: dict[str, set[str]] = {}
    for name in wanted.connections.keys() & observed.connections.keys():
        trapped = _trapped(wanted.connections[name])
        before = _trapped(applied.get(name, wanted.connections[name])).values()
        had = frozenset[IPNetwork]().union(*before)
        for child, prefixes in trapped.items():
            if any(not any(prefix in route for route in routes) for prefix in prefixes & had):
                found.setdefault(name, set()).add(child)
    for sa in observed.not_in_kernel:
        if sa.routes:
            found.setdefault(sa.tunnel, set()).add(sa.child)
    return found


def _trapped(message: Mapping[str, Any]) -> dict[str, frozenset[IPNetwork]]:
    """Return by child the far networks towards which a connection sets a trap."""
    return {
        name: frozenset(remote_networks({"children": {name: child}}))
        for name, child in message.get("children", {}).items()
        if child.get("start_action") == Action.TRAP
    }


def _installed(observed: Observed) -> Iterator[tuple[str, str]]:
    """Yield connection and child of each CHILD_SA that charon has."""
    for message in observed.sas:
        for name, sa in message.items():
            listed = sa.get("child-sas") if isinstance(sa, Mapping) else None
            for child in listed.values() if isinstance(listed, Mapping) else ():
                if isinstance(child, Mapping) and child.get("state") in ("INSTALLED", "REKEYING"):
                    yield name, str(child.get("name", ""))


def _device(wanted: Wanted, observed: Observed) -> Device | None:
    if observed.charon_down is not None or wanted.data_path is not DataPath.LIBIPSEC:
        return None
    return observed.facts.in_kernel.on(observed.data_path).device
