"""charon's own data path, desired against observed: its device, the rule that leads there, its routes.

All three are charon's. A device that is down is set up, and charon brings its routes back then; a rule that
is missing is made as charon makes it. Routes that are missing for another reason come back with the policies
of their connections only, and the device itself with charon's start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from netaddr import IPNetwork

from ipsecctl.desired import Action
from ipsecctl.gateway import CHARONS_TABLE, DEVICE, Device, Observed
from ipsecctl.gateway.device import DOWN
from ipsecctl.plan.change import Change, Kind, Part, fields
from ipsecctl.plan.connections import remote_networks
from ipsecctl.plan.reasons import Drift
from ipsecctl.plan.wanted import Wanted
from ipsecctl.topology import DataPath

__all__ = ["GONE", "device_changes", "device_gone", "rule_of", "unrouted"]

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


def unrouted(wanted: Wanted, observed: Observed) -> frozenset[str]:
    """Return the connections, those that charon has, whose routes into its device are not there.

    The routes of a CHILD_SA, or of a trap: without SAs no other end's traps are known to be there. A trap has
    those that it was applied with: a network that is only now declared behind the far end has none yet.
    """
    device = _device(wanted, observed)
    if device is None or device.lacks == DOWN:
        return frozenset()
    routes = observed.facts.in_kernel.on(observed.data_path).routes
    if routes is None:
        return frozenset()
    applied = observed.facts.record.messages if observed.facts.record is not None else {}
    trapped = {
        name
        for name, message in wanted.connections.items()
        if name in observed.connections
        for prefix in {*_trapped(message)} & {*_trapped(applied.get(name, message))}
        if not any(prefix in route for route in routes)
    }
    return frozenset(trapped | {sa.tunnel for sa in observed.not_in_kernel if sa.routes})


def _trapped(message: Mapping[str, Any]) -> Iterator[IPNetwork]:
    """Yield the far networks towards which a connection sets a trap."""
    for child in message.get("children", {}).values():
        if child.get("start_action") == Action.TRAP:
            yield from remote_networks({"children": {"": child}})


def _device(wanted: Wanted, observed: Observed) -> Device | None:
    if observed.charon_down is not None or wanted.data_path is not DataPath.LIBIPSEC:
        return None
    return observed.facts.in_kernel.on(observed.data_path).device
