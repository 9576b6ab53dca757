"""What a person should know of a gateway beside what it lacks: pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ipsecctl.gateway.capabilities import Capabilities
from ipsecctl.topology import DataPath

__all__ = ["notes"]

_CLOCK_LIMIT_S = 60.0
_STRONGSWAN_TABLE = "220"
_CHARONS = ("charon", "starter")


def notes(capabilities: Capabilities) -> tuple[str, ...]:
    """Return what stands in the way or soon may, a sentence each, in the order in which to look at it."""
    return (
        *_data_path(capabilities),
        *_ipv6(capabilities),
        *_firewall(capabilities),
        *_others(capabilities),
        *_clock(capabilities),
        *(f"{what}: not known ({why})" for what, why in capabilities.unknown),
    )


def _data_path(capabilities: Capabilities) -> Iterator[str]:
    if capabilities.kernel.esp.no and capabilities.data_path is DataPath.LIBIPSEC:
        yield "the kernel has no ESP: charon carries it itself, in user space"
    elif capabilities.data_path is DataPath.LIBIPSEC and capabilities.kernel.esp.yes:
        yield "the kernel has ESP and charon carries it itself all the same (kernel-libipsec is loaded)"


def _ipv6(capabilities: Capabilities) -> Iterator[str]:
    if capabilities.data_path is not DataPath.KERNEL:
        return
    devices = {m[1] for route in capabilities.default_routes if (m := re.search(r"dev (\S+)", route.route))}
    for name in sorted(devices & set(capabilities.ipv6_off)):
        yield (
            f"IPv6 is off on {name}: in policy mode the kernel drops IPv6 packets that come out of tunnels "
            "there, also out of tunnels over IPv4"
        )


def _firewall(capabilities: Capabilities) -> Iterator[str]:
    firewall = capabilities.firewall
    if firewall.legacy_tables:
        count = (
            "rules that could not be read"
            if firewall.legacy_rules is None
            else f"{len(firewall.legacy_rules)} rules"
        )
        tables = ", ".join(firewall.legacy_tables)
        yield (
            f"iptables-legacy is in use ({tables}; {count}): packets pass its rules as well as ours, and nft "
            "does not show them"
        )
    nat = [rule for rule in firewall.source_nat if not rule.only_loopback]
    for rule in nat:
        yield (f"source NAT in {rule.where} ({rule.rule}): it must leave out what goes through tunnels")
    for rule in firewall.ike_redirected:
        yield f"UDP 500 or 4500 may be sent on to somebody else by {rule.where} ({rule.rule})"


def _others(capabilities: Capabilities) -> Iterator[str]:
    for listener in capabilities.listeners:
        if listener.process and not listener.process.startswith(_CHARONS):
            yield f"{listener.process}, not charon, listens on UDP {listener.port} ({listener.address})"
    device = capabilities.interface("ipsec0")
    if device is not None and not device.owner:
        yield f"there is an interface ipsec0 already ({device.kind or 'hardware'}), and it is not charon's"
    for link in capabilities.xfrm_links:
        whose = link.owner or "nobody who can be told: made by hand, or by another program"
        if whose != "ipsecctl":
            yield f"xfrm interface {link.name} with if_id {link.if_id} is there (of {whose})"
    known = {link.if_id for link in capabilities.xfrm_links}
    for if_id in capabilities.kernel.if_ids:
        if if_id not in known:
            yield f"IPsec policies use if_id {if_id}, and no interface here has it"
    for table in capabilities.tables:
        if table.name == _STRONGSWAN_TABLE and table.routes and not capabilities.charon:
            yield f"routing table 220 has {table.routes} IPv{table.family} routes, and charon does not answer"


def _clock(capabilities: Capabilities) -> Iterator[str]:
    clock = capabilities.clock
    if clock.low_s is not None and clock.high_s is not None:
        if clock.low_s > _CLOCK_LIMIT_S:
            yield f"the clock is at least {clock.low_s:.0f} s ahead of this one: certificates may fail"
        elif clock.high_s < -_CLOCK_LIMIT_S:
            yield f"the clock is at least {-clock.high_s:.0f} s behind this one: certificates may fail"
    if clock.synchronised.no:
        yield f"nothing keeps the clock right ({clock.synchronised.why} says so)"
