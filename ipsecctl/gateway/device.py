"""charon's own device, where kernel-libipsec carries ESP: is it there, is it up, and do packets find it?

charon makes the device and one routing policy rule for each family when it starts, and does not mend them:
``ip link set ipsec0 down``, or a manager of the network that removes the rule, stops all tunnels of the
gateway. A device that is set up again gets its routes back from charon; a deleted one is not made anew.

Source: ``manage_rule`` in charon's kernel_netlink_net.c, and ``ip -j -N rule`` of iproute2 6.1 to 7.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from netaddr import IPAddress, IPNetwork

from ipsecctl.gateway.ways import addresses, routes_listed, rules_listed

__all__ = ["CHARONS_TABLE", "DEVICE", "DOWN", "GONE", "NO_IPV6", "Device", "parse_device"]

DEVICE: Final = "ipsec0"
GONE: Final = "gone"
DOWN: Final = "down"
NO_IPV6: Final = "kernel"
"""In place of whose setting has IPv6 off: the kernel has none at all."""

CHARONS_TABLE: Final = 220
"""The table of charon's routes, and the priority of its rule, unless strongswan.conf says otherwise."""

_MAIN: Final = 254
_KNOWN_TABLES: Final = frozenset((0, 213, 253, _MAIN, 255))
"""Tables that are not charon's: none, ours, and those that the kernel looks up by itself."""
_UP: Final = 1
"""``IFF_UP`` of the flags of an interface."""
_HARMLESS: Final = frozenset(("priority", "src", "table", "protocol", "fwmark", "fwmask"))
"""What a rule may say and still be charon's: its ``fwmark`` option exempts its own packets."""


@dataclass(frozen=True, slots=True)
class Device:
    """What was seen of it. ``tables`` says by family (4, 6) in which table charon has its routes into it.

    ``unruled`` are the families of which no rule has all packets look that table up. ``ipv6_off`` says whose
    setting (``all`` or the device's own) has IPv6 off on it, "" where it is on or that is not known.
    ``sources`` are all addresses of the gateway, ``None`` where they are not known.
    """

    there: bool = True
    up: bool = True
    unruled: frozenset[int] = frozenset()
    tables: tuple[tuple[int, int], ...] = ()
    ipv6_off: str = ""
    sources: frozenset[IPAddress] | None = None

    @property
    def lacks(self) -> str:
        """What keeps it from carrying anything: ``GONE``, ``DOWN``, or nothing."""
        return "" if self.up and self.there else DOWN if self.there else GONE

    def table(self, family: int) -> int:
        """Return the table in which charon's routes of a family are, or would be."""
        return dict(self.tables).get(family, CHARONS_TABLE)

    def joined(self, other: Device) -> Device:
        """Return what was in order in one of two looks, the other one being the later."""
        return Device(
            self.there or other.there,
            self.up or other.up,
            self.unruled & other.unruled,
            other.tables or self.tables,
            self.ipv6_off and other.ipv6_off,
            None if self.sources is None or other.sources is None else self.sources | other.sources,
        )


def parse_device(told: Mapping[str, list[str]], routes: Iterable[tuple[IPNetwork, int]]) -> Device | None:
    """Return what the script told of the device, by the first word of its lines, ``None`` if nothing.

    ``routes`` are the prefixes that lead into it, each with its table.
    """
    said = told.get("device", [""])[0]
    if said == "absent":
        return Device(there=False, up=False)
    try:
        up = bool(int(said, 16) & _UP)
    except ValueError:
        return None
    tables: dict[int, int] = {}
    for prefix, table in routes:
        if not prefix.ip.is_link_local():  # the kernel's own, of any interface
            tables[prefix.version] = table
    unruled = frozenset(
        family for family, rules in rules_listed(told) if not _found(tables.get(family), rules)
    )
    sources = frozenset(network.ip for _, network in addresses(told)) if routes_listed(told) else None
    return Device(True, up, unruled, tuple(sorted(tables.items())), _ipv6_off(told), sources)


def _ipv6_off(told: Mapping[str, list[str]]) -> str:
    """Return whose setting has IPv6 off: that of all interfaces, where it says so, as it stands for each."""
    if "device-without-ipv6" in told:
        return NO_IPV6
    settings = dict(line.split(" ", 1) for line in told.get("device-ipv6", ()) if " " in line)
    if settings.get(DEVICE) != "1":
        return ""
    return "all" if settings.get("all") == "1" else DEVICE


def _found(table: int | None, rules: Iterable[Mapping[str, Any]]) -> bool:
    """Whether all packets look a table up before the main one, in which their far network is unreachable.

    Where no route tells the table (``None``), a rule for any that is not known to be another's is enough.
    """
    if table == _MAIN:
        return True
    unrestricted = [
        (_whole(rule.get("priority")), _whole(rule.get("table"))) for rule in rules if _takes_all(rule)
    ]
    main = min((priority for priority, other in unrestricted if other == _MAIN), default=1 << 32)
    return any(
        priority < main and (other == table or (table is None and other not in _KNOWN_TABLES))
        for priority, other in unrestricted
    )


def _takes_all(rule: Mapping[str, Any]) -> bool:
    inverted = "not" in rule
    said = {name for name in rule if name != "not"}
    return rule.get("src") == "all" and said <= _HARMLESS and inverted == ("fwmark" in rule)


def _whole(value: object) -> int:
    try:
        return int(str(value), 0)
    except ValueError:
        return 0
