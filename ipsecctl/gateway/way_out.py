"""Whether a gateway can send to its peers at all: its own address on an interface, and a route to theirs.

``parse_way_out`` reads what a script (_network_script.py) tells of that. Only what the kernel itself calls
missing is told; where routing hangs on more than addresses, nothing is.

Source: ``ip -batch`` of iproute2 6.1 to 7.2, which says on standard error what the kernel answered, and then
at which line (``Command failed -:2``).
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from netaddr import AddrFormatError, IPAddress

from ipsecctl.gateway.barred import Obstacle
from ipsecctl.gateway.ways import addresses, rules_listed

__all__ = ["WayOut", "addresses_of", "led_astray", "no_way_out", "parse_way_out", "way_out_questions"]

_SHOWN: Final = 3

_MORE: Final = frozenset(
    [
        "fwmark",
        "l3mdev",
        "uid_start",
        "ipproto",
        "sport",
        "sport_start",
        "dport",
        "dport_start",
        "tos",
        "dsfield",
        "tun_id",
    ]
)
"""What a rule may look at beside addresses and interfaces, as ``ip -j rule`` names it."""

_NO_ROUTE: Final = frozenset(
    ("Network is unreachable", "No route to host", "Invalid argument", "Permission denied")
)
"""What the kernel answers without a route, and for one that is unreachable, a blackhole, prohibited."""


@dataclass(frozen=True, slots=True)
class WayOut:
    """What a gateway lacks: ``no_route`` has the peers to which there is none with the kernel's answer.

    ``no_address`` are its declared addresses that no interface has. What is not known is in neither.
    ``astray`` has the peers to which a route leads by another interface than the one with its own address,
    each with the address, its interface and the other one: that may be meant.
    """

    no_route: Mapping[IPAddress, str] = field(default_factory=dict)
    no_address: frozenset[IPAddress] = frozenset()
    astray: Mapping[IPAddress, tuple[IPAddress, str, str]] = field(default_factory=dict)


def way_out_questions(own: Iterable[IPAddress], peers: Iterable[IPAddress]) -> tuple[str, ...]:
    """Return the lines by which the script is asked, sorted."""
    return (
        *(f"address {address}" for address in sorted(set(own))),
        *(f"peer {address}" for address in sorted(set(peers))),
    )


def parse_way_out(told: Mapping[str, Iterable[str]]) -> WayOut:
    """Return what the script told, by the first word of its lines.

    An address of the gateway's own that is there is the source that counts: there may be rules for it.
    Without one, and with rules that look at a packet's marks and more, the answer would not be charon's.
    """
    there = {network.ip for _, network in addresses(told)}
    own = {address for text in told.get("address", ()) for address in _address(text)}
    listed = {int(family) for family in told.get("told", ())}
    rules = dict(_rules(told))
    no_route = {}
    for line in told.get("no-way", ()):
        peer, source, why = line.split(" ", 2)
        for address in _address(peer):
            sources = {str(mine) for mine in own & there if mine.version == address.version}
            by_addresses = rules.get(address.version)
            if by_addresses is None or why not in _NO_ROUTE:
                continue
            if source in sources or (source == "any" and not sources and by_addresses == "destination"):
                no_route[address] = why
    return WayOut(
        no_route, frozenset(a for a in own - there if a.version in listed), dict(_astray(told, own, rules))
    )


def _astray(
    told: Mapping[str, Iterable[str]], own: Collection[IPAddress], rules: Container[int]
) -> Iterator[tuple[IPAddress, tuple[IPAddress, str, str]]]:
    """Yield the peers to which the way does not begin at the interface that has the own address.

    An address on an interface that leads nowhere (``lo``, ``dummy``) may be reached by any other.
    """
    places: dict[IPAddress, set[str]] = {}
    for name, network in addresses(told):
        places.setdefault(network.ip, set()).add(name)
    for line in told.get("leaves", ()):
        peer, source, device = line.split(" ", 2)
        for far, here in zip(_address(peer), _address(source), strict=False):
            has = sorted(places.get(here, ()))
            leads_nowhere = any(name == "lo" or name.startswith("dummy") for name in has)
            if here in own and far.version in rules and has and device not in has and not leads_nowhere:
                yield far, (here, has[0], device)


def led_astray(
    gateway: str, own: Iterable[IPAddress], peers: Iterable[IPAddress], seen: WayOut
) -> tuple[Obstacle, ...]:
    """Return which ways to ``peers`` do not begin at the interface that has one of the ``own`` addresses."""
    own = {*own}
    found: dict[tuple[IPAddress, str, str], list[IPAddress]] = {}
    for peer in sorted({*peers} & seen.astray.keys()):
        if seen.astray[peer][0] in own:
            found.setdefault(seen.astray[peer], []).append(peer)
    return tuple(
        Obstacle(
            f"{gateway} sends to {_some(lost)} by {device}, and not by {wan}, which has its address {here}",
            f"look whether that is meant (ip route get {lost[0]} from {here}), or remove that route",
        )
        for (here, wan, device), lost in sorted(found.items())
    )


def _some(peers: Sequence[IPAddress]) -> str:
    more = f" and {len(peers) - _SHOWN} more peers" if len(peers) > _SHOWN else ""
    return ", ".join(map(str, peers[:_SHOWN])) + more


def _rules(told: Mapping[str, Iterable[str]]) -> Iterator[tuple[int, str]]:
    """Yield by family what routing hangs on, ``destination`` or ``source and destination``.

    A family of which the rules look at more, or cannot be read, is left out.
    """
    for family, rules in rules_listed(told):
        if not any(_MORE & {*rule} for rule in rules):
            by_source = any(rule.get("src", "all") != "all" for rule in rules)
            yield family, "source and destination" if by_source else "destination"


def addresses_of(texts: Iterable[object]) -> Iterator[IPAddress]:
    """Yield what is an address; names, ``%any`` and nothing at all are passed over."""
    return (address for text in texts if text is not None for address in _address(text))


def _address(text: object) -> tuple[IPAddress, ...]:
    return (text,) if isinstance(text, IPAddress) else _parsed(str(text))


@lru_cache(maxsize=1 << 16)  # of thousands of peers each is told, and asked for, several times
def _parsed(text: str) -> tuple[IPAddress, ...]:
    try:
        return (IPAddress(text),)
    except (AddrFormatError, ValueError):
        return ()


def no_way_out(
    gateway: str, own: Iterable[IPAddress], peers: Iterable[IPAddress], seen: WayOut
) -> tuple[Obstacle, ...]:
    """Return what keeps a gateway from sending to ``peers``, its own address first."""
    found = [
        Obstacle(
            f"{gateway} does not have its declared address {address}: no interface has it, and charon can "
            "neither call from it nor be called there",
            "set it (ip address add), or declare the one that the gateway has",
        )
        for address in sorted({*own} & seen.no_address)
    ]
    if lost := sorted({*peers} & seen.no_route.keys()):
        found.append(
            Obstacle(
                f"{gateway} has no route to {_some(lost)} ({seen.no_route[lost[0]]}): neither IKE nor ESP "
                "leaves for there",
                f"bring its WAN up, or set the route (ip route get {lost[0]} shows what the kernel has)",
            )
        )
    return tuple(found)
